"""Runs all launches of a plan in PyTorch; on CUDA they are captured as one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.clones import OnStep
from dipgo.engines.launches import RESULT, Binding, Launch, LaunchList, combine_engine, input_region
from dipgo.engines.memory import room_for
from dipgo.ir.types import COMBINE_FILES, ELEMENT_TYPES, numpy_dtype

TRAJECTORY = "trajectory"

WARM_UPS = 3
"""Runs before the capture, in which libraries choose their kernels.

Source: PyTorch's documentation of CUDA graphs.
"""

Function: TypeAlias = Callable[..., Sequence[torch.Tensor]]
"""Computes an engine's outputs from its inputs, in the engine's order."""


@dataclass(frozen=True, slots=True)
class _Bound:
    launch: Launch
    function: Function
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]

    def run(self) -> None:
        """Copies the results to their slots: PyTorch's operators choose where they write.

        Raises:
            DipgoError: The engine fails, or its results are not those that the plan has.
        """
        try:
            results = self.function(*self.inputs)
        except Exception as error:  # operators raise what they like
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if len(results) != len(self.outputs):
            raise self._failed(f"{len(results)} results, not {len(self.outputs)}")
        for target, result in zip(self.outputs, results, strict=True):
            if result.shape != target.shape or result.dtype != target.dtype:
                # Copying would convert the numbers and repeat them.
                raise self._failed(f"{_type(result)}, not {_type(target)} as the plan has it")
            target.copy_(result)

    def _failed(self, problem: str) -> DipgoError:
        return DipgoError(
            f"engine {self.launch.engine}, step {self.launch.step}",
            found=problem,
            expected="the results that the plan has",
            remedy="the export is damaged, or memory does not suffice: export again",
        )


def _type(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"


class Executor:
    """Runs one list of launches on `device`; `functions` are by the names of engines."""

    @torch.no_grad()
    def __init__(
        self, launches: LaunchList, functions: Mapping[str, Function], device: str
    ) -> None:
        self._list, self._device = launches, torch.device(device)
        with room_for(launches):
            self._regions = {
                name: torch.zeros(nbytes, dtype=torch.uint8, device=self._device)
                for name, nbytes in launches.regions.items()
            }
        for name, content in launches.contents.items():
            self._regions[name].copy_(torch.from_numpy(content.copy()))
        known = {combine_engine(name): combine for name in COMBINE_FILES} | dict(functions)
        self._bound = [self._bind(launch, known[launch.engine]) for launch in launches.launches]
        self._graph = self._capture() if self._device.type == "cuda" else None

    @torch.no_grad()
    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """Returns the result and the seconds of all launches, on the device's clock.

        Under a CUDA graph `on_step` is called at the end: the host cannot observe when a step ends.
        """
        for name, array in inputs.items():
            source = torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            self._regions[input_region(name)].copy_(source)
        seconds = self._launch_all(on_step) if self._graph is None else self._replay(on_step)
        tensor_type = self._list.result
        result: NDArray[Any] = (
            self._regions[RESULT].cpu().numpy().view(numpy_dtype(tensor_type.dtype))
        )
        return result.reshape(tensor_type.shape).copy(), {TRAJECTORY: seconds}

    def _bind(self, launch: Launch, function: Function) -> _Bound:
        inputs = tuple(self._view(binding) for binding in launch.inputs)
        outputs = tuple(self._view(binding) for binding in launch.outputs)
        return _Bound(launch, function, inputs, outputs)

    def _view(self, binding: Binding) -> torch.Tensor:
        """Returns the binding's tensor, in place."""
        region = self._regions[binding.place.region]
        held = region[binding.place.offset : binding.place.offset + binding.type.nbytes]
        return held.view(getattr(torch, ELEMENT_TYPES[binding.type.dtype].torch)).view(
            binding.type.shape
        )

    def _launch_all(self, on_step: OnStep) -> float:
        started = perf_counter()
        for bound in self._bound:
            bound.run()
            if bound.launch.segment is not None:
                on_step(bound.launch.step)
        return perf_counter() - started

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._launch_all(lambda step: None)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # the graph's pool cannot use memory that the warm-up has left
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._launch_all(lambda step: None)
        return graph

    def _replay(self, on_step: OnStep) -> float:
        assert self._graph is not None
        begin, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        begin.record()
        self._graph.replay()
        end.record()
        end.synchronize()
        for step in dict.fromkeys(launch.step for launch in self._list.launches):
            on_step(step)
        return float(begin.elapsed_time(end)) / 1e3


def combine(
    x: torch.Tensor, x_coefficient: torch.Tensor, y: torch.Tensor, y_coefficient: torch.Tensor
) -> tuple[torch.Tensor]:
    """Returns (a x + b y,), computed in fp32."""
    return ((x.float() * x_coefficient + y.float() * y_coefficient).to(x.dtype),)
