"""Binds every launch to sessions once, then runs the launches in order.

Slots, tables and inputs have fixed addresses, so nothing is copied between launches and nothing is
left to decide at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.clones import OnStep
from dipgo.engines.launches import RESULT, Binding, Launch, LaunchList, input_region
from dipgo.engines.memory import room_for
from dipgo.engines.onnxruntime.memory import Block
from dipgo.engines.onnxruntime.session import DEVICES, FATAL, SessionSettings
from dipgo.ir.types import ELEMENT_TYPES

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, slots=True)
class BoundLaunch:
    """A launch with the session that runs it and the addresses that it reads and writes."""

    launch: Launch
    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class Executor:
    """Runs one list of launches on ONNX Runtime, for one thread at a time."""

    def __init__(
        self,
        launches: LaunchList,
        sessions: Mapping[str, onnxruntime.InferenceSession],
        settings: SessionSettings,
    ) -> None:
        self._sessions, self._device = sessions, DEVICES[settings.provider]
        self._captures = settings.provider == "cuda-graph"
        self._result_type = launches.result
        with room_for(launches):
            self._regions = {
                name: Block.of_bytes(nbytes, self._device)
                for name, nbytes in launches.regions.items()
            }
        for name, content in launches.contents.items():
            self._regions[name].write(content)
        self._launches = [
            self._bind(launch, index) for index, launch in enumerate(launches.launches)
        ]

    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """Returns the plan's result, and the seconds spent in each segment's calls."""
        for name, array in inputs.items():
            self._regions[input_region(name)].write(array)
        seconds: dict[str, float] = {}
        for bound in self._launches:
            started = perf_counter()
            try:
                bound.session.run_with_iobinding(bound.binding, bound.options)
            except Exception as error:  # ONNX Runtime's own exceptions have no public name
                raise _failed(bound.launch, error) from error
            segment = bound.launch.segment
            if segment is not None:
                seconds[segment] = seconds.get(segment, 0.0) + perf_counter() - started
                on_step(bound.launch.step)
        return self._regions[RESULT].read(self._result_type), seconds

    def _bind(self, launch: Launch, index: int) -> BoundLaunch:
        session = self._sessions[launch.engine]
        binding = session.io_binding()
        known = {value.name for value in session.get_inputs()}
        for argument in launch.inputs:
            if argument.tensor in known:  # a graph may do without an input that has no effect
                binding.bind_input(*self._arguments(argument))
        for output in launch.outputs:
            binding.bind_output(*self._arguments(output))
        return BoundLaunch(launch, session, binding, self._run_options(index))

    def _run_options(self, index: int) -> onnxruntime.RunOptions:
        """Returns a launch's run options: a captured graph holds addresses, so it is not shared."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = FATAL
        if self._captures:
            options.add_run_config_entry("gpu_graph_id", str(index + 1))
        return options

    def _arguments(self, argument: Binding) -> tuple[Any, ...]:
        address = self._regions[argument.place.region].address(argument.place.offset)
        element = ELEMENT_TYPES[argument.type.dtype].onnx
        return argument.tensor, self._device, 0, element, argument.type.shape, address


def _failed(launch: Launch, error: Exception) -> DipgoError:
    return DipgoError(
        f"engine {launch.engine}, step {launch.step}",
        found=f"what ONNX Runtime cannot run: {error}",
        expected="a graph that runs on the plan's shapes, and memory for it",
        remedy="free some memory; if that is not it, the export is damaged: export again",
    )
