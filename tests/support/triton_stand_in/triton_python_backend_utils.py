"""Stands in for the module of Triton's Python backend, which exists inside the server only.

No more than dipgo's model uses, and with the checks that the server makes of arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        """As in the configuration."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """Strings are of type object, and bytes."""
        return self._array


class TritonError:
    """Why a request has no answer."""

    INVALID_ARG, INTERNAL = "INVALID_ARG", "INTERNAL"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        assert isinstance(message, str)
        self.message, self.code = message, code


class InferenceRequest:
    """The inputs that a client has sent; optional ones may be missing."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = inputs

    def inputs(self) -> Sequence[Tensor]:
        """In any order."""
        return self._inputs


class InferenceResponse:
    """Outputs, or an error."""

    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None
    ) -> None:
        assert isinstance(error, TritonError | None)
        self.output_tensors, self.error = output_tensors, error
