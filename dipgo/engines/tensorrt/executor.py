"""Runs all launches of a plan on TensorRT, captured as one CUDA graph.

Engines are deserialised once, execute in one scratch allocation that is as large as the largest
needs, and read and write slots in place. A run copies the inputs in, launches the graph and copies
the result out; the host waits once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.clones import OnStep
from dipgo.engines.launches import RESULT, Launch, LaunchList, Place, aligned, input_region
from dipgo.engines.tensorrt.alignment import Copy, align
from dipgo.engines.tensorrt.cuda import Graph
from dipgo.engines.tensorrt.loaded import LoadedEngines
from dipgo.ir.types import numpy_dtype

TRAJECTORY = "trajectory"
"""The name of a run's only time: one graph holds all segments."""

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


class Executor:
    """An executor of one list of launches, for one thread at a time.

    Raises:
        DipgoError: An engine does not load or fit its graph, or device memory does not suffice.
    """

    def __init__(self, launches: LaunchList, loaded: LoadedEngines) -> None:
        self._list, self._driver = launches, loaded.driver
        self._launches = align(launches)
        self._driver.enter()  # this thread may not be the one that opened the driver
        self._engines = loaded.load(launches)
        self._contexts: dict[tuple[str, Shapes], Any] = {}
        for key in map(_context_key, launches.launches):
            if key not in self._contexts:
                self._contexts[key] = _make_context(self._engines[key[0]], key, loaded.library)
        self._allocate()
        self._stream = self._driver.stream()
        self._graph = self._capture()

    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """Runs the launches once.

        Args:
            inputs: An array for each input.
            on_step: Called for every step when all are done: no step ends where the host could see
                it.

        Returns:
            The result, and the device's seconds from the first launch to the last, as TRAJECTORY.
        """
        self._driver.enter()  # this thread may not be the one that loaded the engines
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in arrays.items():
            self._stream.write(self._addresses[input_region(name)], array)
        with self._stream.timed() as seconds:
            self._graph.launch(self._stream)
        result_type = self._list.result
        result: NDArray[Any] = np.empty(result_type.shape, numpy_dtype(result_type.dtype))
        self._stream.read(result, self._addresses[RESULT])
        self._stream.synchronize()
        for step in dict.fromkeys(launch.step for launch in self._list.launches):
            on_step(step)
        return result, {TRAJECTORY: seconds()}

    def _allocate(self) -> None:
        """Makes one allocation for all regions, and one in which the engines execute in turn."""
        needs = [_scratch_nbytes(context) for context in self._contexts.values()]
        scratch = aligned(max(needs, default=0))
        offsets, total = _lay_out(self._launches.regions)
        self._driver.check_free(total + scratch, "slots and what engines execute in")
        self._memory = self._driver.allocate(total)
        self._scratch = self._driver.allocate(max(scratch, 1))
        self._addresses = {name: self._memory.address + at for name, at in offsets.items()}
        for context in self._contexts.values():
            context.set_device_memory(self._scratch.address, scratch)

    def _capture(self) -> Graph:
        """Runs once, so that libraries load kernels and settle shapes, then captures the graph."""
        for name, content in self._list.contents.items():
            self._stream.write(self._addresses[name], content)
        self._enqueue_all()
        self._stream.synchronize()
        graph = self._stream.capture(self._enqueue_all)
        graph.launch(self._stream)
        self._stream.synchronize()
        return graph

    def _enqueue_all(self) -> None:
        for aligned_launch in self._launches:
            self._copy(aligned_launch.before)
            self._enqueue(aligned_launch.launch)
            self._copy(aligned_launch.after)

    def _copy(self, copies: Iterable[Copy]) -> None:
        for copy in copies:
            self._stream.copy(self._address(copy.target), self._address(copy.source), copy.nbytes)

    def _enqueue(self, launch: Launch) -> None:
        context = self._contexts[_context_key(launch)]
        tensors = _tensors(self._engines[launch.engine])
        done = all(
            context.set_tensor_address(binding.tensor, self._address(binding.place))
            for binding in (*launch.inputs, *launch.outputs)
            if binding.tensor in tensors  # an input that nothing reads may be gone
        )
        if not done or not context.execute_async_v3(int(self._stream)):
            raise DipgoError(
                f"engine {launch.engine}, step {launch.step}",
                found="an engine that could not be queued",
                expected="a launch",
                remedy="see what TensorRT says above",
            )

    def _address(self, place: Place) -> int:
        return self._addresses[place.region] + place.offset


def _context_key(launch: Launch) -> tuple[str, Shapes]:
    """Returns what a context is made for, shapes included: captured ones must not change."""
    return launch.engine, tuple((binding.tensor, binding.type.shape) for binding in launch.inputs)


def _make_context(engine: Any, key: tuple[str, Shapes], library: Any) -> Any:
    """Makes a context without device memory: all contexts share one scratch allocation."""
    name, shapes = key
    runtime_config = engine.create_runtime_config()
    strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
    runtime_config.set_execution_context_allocation_strategy(strategy)
    if hasattr(library, "DynamicShapesKernelSpecializationStrategy"):
        # TensorRT for RTX would otherwise make the kernels for the shapes later, and a captured
        # graph would keep the kernels that it uses until then.
        eager = library.DynamicShapesKernelSpecializationStrategy.EAGER
        runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    context = engine.create_execution_context(runtime_config)
    if context is None:
        raise DipgoError(
            f"engine {name}",
            found="no execution context; the library says why above",
            expected="one",
            remedy="end what else uses the GPU",
        )
    tensors = _tensors(engine)
    for tensor, shape in shapes:
        if tensor in tensors and not context.set_input_shape(tensor, shape):
            raise DipgoError(
                f"engine {name}",
                found=f"one that does not take {list(shape)} for {tensor}",
                expected="an engine of this export's graph",
                remedy="build the engines again",
            )
    return context


def _tensors(engine: Any) -> set[str]:
    return {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}


def _scratch_nbytes(context: Any) -> int:
    return int(context.update_device_memory_size_for_shapes())


def _lay_out(regions: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Returns the regions' offsets in one allocation, and its size."""
    offsets, end = {}, 0
    for name, nbytes in regions.items():
        offsets[name] = end
        end += aligned(max(nbytes, 1))
    return offsets, end
