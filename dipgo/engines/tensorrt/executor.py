"""The executor: all launches of a plan on TensorRT, captured as one CUDA graph.

Engines are deserialised once, execute in one scratch allocation that is as large as the largest
needs, and read and write slots in place. A run copies the inputs in, launches the graph and
copies the result out; the host waits once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.launches import RESULT, Launch, LaunchList, Place, aligned, input_region
from dipgo.engines.runner import OnStep
from dipgo.engines.tensorrt.alignment import Copy, align
from dipgo.engines.tensorrt.cuda import Driver, Graph
from dipgo.ir.types import numpy_dtype

TRAJECTORY = "trajectory"
"""What a run's times have in place of segments: one graph has them all."""

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


class Executor:
    """Runs one list of launches; not for several threads at once."""

    def __init__(
        self,
        launches: LaunchList,
        engines: EngineDirectory,
        library: Any,
        driver: Driver,
        check_hashes: bool = True,
    ) -> None:
        self._list, self._driver = launches, driver
        self._launches = align(launches)
        driver.enter()  # this may be another thread than that which opened the driver
        engines.check_shapes(launches.launches)
        names = list(dict.fromkeys(launch.engine for launch in launches.launches))
        driver.check_free(engines.nbytes(names) + launches.nbytes, "engines and slots")
        self._runtime = library.Runtime(library.Logger(library.Logger.ERROR))
        self._engines = _deserialise(engines, names, self._runtime, check_hashes)
        self._contexts: dict[tuple[str, Shapes], Any] = {}
        for key in map(_context_key, launches.launches):
            if key not in self._contexts:
                self._contexts[key] = _make_context(self._engines[key[0]], key, library)
        self._allocate()
        self._stream = driver.stream()
        self._graph = self._capture()

    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """The result, and the device's seconds from the first launch to the last.

        `on_step` is called when all is done: no step ends where the host could see it.
        """
        self._driver.enter()  # this may be another thread than that which loaded
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in given.items():
            self._stream.write(self._addresses[input_region(name)], array)
        with self._stream.timed() as seconds:
            self._graph.launch(self._stream)
        kind = self._list.result
        result: NDArray[Any] = np.empty(kind.shape, numpy_dtype(kind.dtype))
        self._stream.read(result, self._addresses[RESULT])
        self._stream.synchronize()
        for step in dict.fromkeys(launch.step for launch in self._list.launches):
            on_step(step)
        return result, {TRAJECTORY: seconds()}

    def _allocate(self) -> None:
        """One allocation for all regions, and one that the engines execute in by turns."""
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
        """Once without capturing: libraries load kernels, and finish what shapes decide."""
        for name, content in self._list.contents.items():
            self._stream.write(self._addresses[name], content)
        self._enqueue_all()
        self._stream.synchronize()
        graph = self._stream.capture(self._enqueue_all)
        graph.launch(self._stream)
        self._stream.synchronize()
        return graph

    def _enqueue_all(self) -> None:
        for one in self._launches:
            self._copy(one.before)
            self._enqueue(one.launch)
            self._copy(one.after)

    def _copy(self, copies: Iterable[Copy]) -> None:
        for one in copies:
            self._stream.copy(self._address(one.target), self._address(one.source), one.nbytes)

    def _enqueue(self, launch: Launch) -> None:
        context = self._contexts[_context_key(launch)]
        tensors = _tensors(self._engines[launch.engine])
        done = all(
            context.set_tensor_address(one.tensor, self._address(one.place))
            for one in (*launch.inputs, *launch.outputs)
            if one.tensor in tensors  # an input that nothing reads may be gone
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
    """A captured context's shapes must not change: one for each engine and shapes."""
    return launch.engine, tuple((one.tensor, one.type.shape) for one in launch.inputs)


def _deserialise(
    engines: EngineDirectory, names: list[str], runtime: Any, check_hashes: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        engine = runtime.deserialize_cuda_engine(engines.read(name, check_hashes))
        if engine is None:
            raise DipgoError(
                str(engines.path / engines.manifest.engines[name].file),
                found="an engine that the library does not load; it says why above",
                expected="one that was built with this version, for this GPU",
                remedy=engines.remedy,
            )
        found[name] = engine
    return found


def _make_context(engine: Any, key: tuple[str, Shapes], library: Any) -> Any:
    """Without device memory of its own: all contexts share one scratch."""
    name, shapes = key
    runtime_config = engine.create_runtime_config()
    strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
    runtime_config.set_execution_context_allocation_strategy(strategy)
    if hasattr(library, "DynamicShapesKernelSpecializationStrategy"):
        # TensorRT for RTX: else kernels for the shapes come later, and a captured graph would
        # keep those that stand in for them.
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
                remedy="build the engines anew",
            )
    return context


def _tensors(engine: Any) -> set[str]:
    return {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}


def _scratch_nbytes(context: Any) -> int:
    return int(context.update_device_memory_size_for_shapes())


def _lay_out(regions: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Offsets of the regions in one allocation, and its size."""
    offsets, end = {}, 0
    for name, nbytes in regions.items():
        offsets[name] = end
        end += aligned(max(nbytes, 1))
    return offsets, end
