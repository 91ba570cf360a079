"""Runs an export: numpy arrays in, numpy arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from time import perf_counter
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from dipgo.common.arguments import checks_arguments
from dipgo.common.errors import DipgoError, close_to, described
from dipgo.common.given_numbers import array_of, finite_number
from dipgo.common.one_line import one_line
from dipgo.engines.clones import Clones, OnStep, PlanExecutor, closed
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import offsets_of_part
from dipgo.ir.types import TensorType, numpy_dtype


class Part:
    """A part of the manifest on the backend of a runner; `inputs` and `outputs` are types.

    Any number of threads may call it, as they may run the runner.
    """

    def __init__(self, runner: Runner, name: str) -> None:
        record = runner.export.manifest.parts[name]
        self.inputs = {value.name: TensorType.parse(value.type) for value in record.inputs}
        self.outputs = {value.name: TensorType.parse(value.type) for value in record.outputs}
        self._offsets = offsets_of_part(record)
        self._name, where = name, f"{runner.export.path}, part {name}"
        self._clones = Clones(lambda: runner.backend.part(name), runner.clones, where)
        runner.parts.add(self)

    def __repr__(self) -> str:
        return f"<Part {self._name}: {_types(self.inputs)} -> {_types(self.outputs)}>"

    def close(self) -> None:
        """Drops its executors, when its runs have ended; see `Runner.close`."""
        self._clones.close()

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns the part's outputs by name, for arrays of the types of `inputs`."""
        held, _ = self._clones.run(arrays)
        return {
            name: _view(held[offset:], tensor_type)
            for (name, tensor_type), offset in zip(
                self.outputs.items(), self._offsets, strict=False
            )
        }


def _types(values: Mapping[str, TensorType]) -> str:
    return ", ".join(f"{name} {tensor_type}" for name, tensor_type in values.items())


def _view(held: NDArray[np.uint8], tensor_type: TensorType) -> NDArray[Any]:
    return (
        held[: tensor_type.nbytes].view(numpy_dtype(tensor_type.dtype)).reshape(tensor_type.shape)
    )


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Wall-clock seconds of one run: in all, and inside the calls of each segment's engine."""

    total: float
    segments: dict[str, float]

    @property
    def overhead(self) -> float:
        """Returns the share of the run spent outside the segments' engines, 0 to 1."""
        return 1.0 - sum(self.segments.values()) / self.total


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """The settings of a backend.

    `target` is its name, `provider` one of its providers, and `threads` of 0 takes every core.
    `check_hashes` is whether engines are compared with the hashes in their manifest.
    """

    target: str
    provider: str
    threads: int = 0
    check_hashes: bool = True


class Backend(Protocol):
    """Makes executors of one export on one target; all share its weights and engines.

    Raises:
        DipgoError: An executor cannot be made.
    """

    def plan(self) -> PlanExecutor:
        """Returns an executor of the plan."""

    def part(self, name: str) -> PlanExecutor:
        """Returns an executor of a graph around the plan, as a plan of one call."""


class Runner:
    """Runs an export. `inputs` and `outputs` map names to types such as `f32[1,4,64,64]`.

    Any number of threads may run it: `clones` runs go on at a time, and further ones wait. All
    share weights and engines; each clone has its own buffers. `close()`, or the end of `with`,
    frees them; engines that a clone shares are freed with the last.
    """

    def __init__(
        self, export: ExportDirectory, backend: Backend, clones: int = 1, target: str = ""
    ) -> None:
        self.export, self.clones, self.target = export, clones, target
        self._backend: Backend | None = backend
        self.parts: WeakSet[Part] = WeakSet()
        """The parts that run on its backend, and are closed with it."""
        self.inputs = {value.name: value.type for value in export.plan.inputs}
        self.outputs = {
            record.name: TensorType.parse(record.type) for record in export.manifest.outputs
        }
        self.times: RunTimes | None = None
        """The times of the run that ended last."""
        self._clones = Clones(backend.plan, clones, str(export.path))

    def clone(self) -> Runner:
        """Returns a runner with the same weights and engines, and with buffers of its own.

        Raises:
            DipgoError: The backend has no more than one, or memory does not suffice.
        """
        return Runner(self.export, self.backend, self.clones, self.target)

    @property
    def backend(self) -> Backend:
        """The backend that makes its executors.

        Raises:
            DipgoError: The runner is closed.
        """
        if self._backend is None:
            raise closed(str(self.export.path))
        return self._backend

    def close(self) -> None:
        """Frees engines and buffers, when runs that go on have ended; then nothing can be run.

        Clones of `clone()` are runners of their own: they stay open, and so do the engines that
        they share. To close it again does nothing.

        Raises:
            DipgoError: It is called within a run.
        """
        for part in list(self.parts):
            part.close()
        self._clones.close()
        self._backend = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Runner: {self.describe()}>"

    def describe(self) -> str:
        """Returns in a few words what it runs: model, steps, latents, target, and the path."""
        manifest, plan = self.export.manifest, self.export.plan
        facts = (
            f"{manifest.model.class_name} of {manifest.model.source}",
            f"{plan.num_inference_steps} steps",
            f"latents {self.inputs['latents']}",
            *((f"on {self.target}",) if self.target else ()),
            *(("closed",) if self._backend is None else ()),
            f"from {self.export.path}",
        )
        return one_line(", ".join(facts))

    @checks_arguments
    def run(
        self, inputs: Mapping[str, Any], *, on_step: OnStep = lambda step: None
    ) -> dict[str, NDArray[Any]]:
        """Runs all steps and returns `{"latents": f32[B, C, H, W]}`.

        The numbers are as the engines yield them: NaN or infinity, where a run overflows, is for
        the caller to look for. `dipgo.Pipeline` and all commands refuse it.

        Args:
            inputs: Arrays with the names, shapes and element types of `self.inputs`; a Python
                number suffices for a scalar. `latents` is the scheduler's initial noise, already
                scaled.
            on_step: Called with each step that has just run.

        Raises:
            DipgoError: An input is missing, unknown, of another type, or not finite; or the run
                begins within another (in `on_step`), or in a forked process.
        """
        arrays = _check_inputs(inputs, self.inputs)
        started = perf_counter()
        result, segments = self._clones.run(arrays, on_step)
        self.times = RunTimes(perf_counter() - started, segments)
        (name,) = self.outputs
        return {name: result}


def _check_inputs(
    inputs: Mapping[str, Any], expected: Mapping[str, TensorType]
) -> dict[str, NDArray[Any]]:
    for name in (*inputs, *expected):
        if name not in inputs or name not in expected:
            is_missing = name not in inputs
            remedy = "give each of these, and no other"
            raise DipgoError(
                f"input {name}",
                found="missing" if is_missing else "a name that the export does not have",
                expected=f"inputs {', '.join(expected)}",
                remedy=remedy if is_missing else close_to(name, expected, remedy),
            )
    return {
        name: _check_input(name, inputs[name], tensor_type)
        for name, tensor_type in expected.items()
    }


def _check_input(name: str, value: Any, tensor_type: TensorType) -> NDArray[Any]:
    dtype = numpy_dtype(tensor_type.dtype)
    if tensor_type.shape == () and isinstance(value, Real):
        return finite_number(f"input {name}", value, dtype)
    array = array_of(value)
    if array is None or array.shape != tensor_type.shape or array.dtype != dtype:
        raise DipgoError(
            f"input {name}",
            found=described(value) if array is None else f"{array.dtype}{list(array.shape)}",
            expected=f"{dtype}{list(tensor_type.shape)}",
            remedy="convert it, or export for this size",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DipgoError(
            f"input {name}",
            found="NaN or infinity",
            expected="finite numbers",
            remedy="look for the fault in what made this array",
        )
    return array
