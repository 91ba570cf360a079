"""The model that Triton's Python backend runs; a model repository holds a copy of this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from dipgo.common.errors import DipgoError
from dipgo.run.triton.service import load_service


class TritonPythonModel:
    """A model that answers requests with the export directory next to this file."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the engines as config.pbtxt says.

        Raises:
            DipgoError: They cannot be loaded; Triton shows its line.
        """
        self.service = load_service(Path(__file__).with_name("export"), args)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Returns a response for each request, in their order."""
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        """Frees the engines and their memory."""
        del self.service

    def _respond(self, request: Any) -> Any:
        """Answers one request, and raises nothing: that would fail the other requests too."""
        try:
            arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            outputs = self.service(arrays)
            tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except DipgoError as error:
            return _failed(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            return _failed(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)


def _failed(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
