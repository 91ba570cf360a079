"""The graphs around the plan: text encoder and VAE decoder, one input and one output each."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dipgo.engines.runner import Runner
from dipgo.graph import TensorType


class Part:
    """One of the manifest's parts, on the backend of a runner."""

    def __init__(self, runner: Runner, name: str) -> None:
        record = runner.export.manifest.parts[name]
        self.input_type = TensorType.parse(record.inputs[0].type)
        self.output_type = TensorType.parse(record.outputs[0].type)
        self._input_name = record.inputs[0].name
        self._executor = runner.backend.part(name)

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part's output for one input of `input_type`."""
        result, _ = self._executor.run({self._input_name: array}, lambda step: None)
        return result
