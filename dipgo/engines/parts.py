"""The graphs around the plan: text encoder and VAE decoder, one input and one output each."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dipgo.engines.export_dir import ExportDirectory
from dipgo.engines.onnxruntime.session import SessionSettings, make_session
from dipgo.graph import TensorType


class Part:
    """A session for one of the manifest's parts."""

    def __init__(self, export: ExportDirectory, name: str, settings: SessionSettings) -> None:
        record = export.manifest.parts[name]
        self.input_type = TensorType.parse(record.inputs[0].type)
        self.output_type = TensorType.parse(record.outputs[0].type)
        self._input_name = record.inputs[0].name
        self._session = make_session(export.path / record.file, settings)

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part's output for one input of `input_type`."""
        result: NDArray[Any] = self._session.run(None, {self._input_name: array})[0]
        return result
