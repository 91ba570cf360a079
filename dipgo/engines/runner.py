"""Runs an export: numpy arrays in, numpy arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.clones import Clones, OnStep, PlanExecutor
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
        where = f"{runner.export.path}, part {name}"
        self._clones = Clones(lambda: runner.backend.part(name), runner.clones, where)

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns the part's outputs by name, for arrays of the types of `inputs`."""
        held, _ = self._clones.run(arrays)
        return {
            name: _view(held[offset:], tensor_type)
            for (name, tensor_type), offset in zip(
                self.outputs.items(), self._offsets, strict=False
            )
        }


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
    share weights and engines; each clone has its own buffers.
    """

    def __init__(self, export: ExportDirectory, backend: Backend, clones: int = 1) -> None:
        self.export, self.backend, self.clones = export, backend, clones
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
        return Runner(self.export, self.backend, self.clones)

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
            raise DipgoError(
                f"input {name}",
                found="missing" if name not in inputs else "a name that the export does not have",
                expected=f"inputs {', '.join(expected)}",
                remedy="give each of these, and no other",
            )
    return {
        name: _check_input(name, inputs[name], tensor_type)
        for name, tensor_type in expected.items()
    }


def _check_input(name: str, value: Any, tensor_type: TensorType) -> NDArray[Any]:
    dtype = numpy_dtype(tensor_type.dtype)
    if tensor_type.shape == () and isinstance(value, int | float):
        value = np.asarray(value, dtype)
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.empty((), object)
    if array.shape != tensor_type.shape or array.dtype != dtype:
        raise DipgoError(
            f"input {name}",
            found=f"{array.dtype}{list(array.shape)}",
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
