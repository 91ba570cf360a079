"""Memory that launches are bound to: OrtValues whose addresses never change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.types import TensorType, numpy_dtype


class Block:
    """Bytes on a device (`cpu` or `cuda`)."""

    def __init__(self, array: NDArray[np.uint8], device: str) -> None:
        import onnxruntime

        # On the CPU the OrtValue uses the array's own memory, which must therefore stay.
        self._array = array
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)

    @classmethod
    def of_bytes(cls, nbytes: int, device: str) -> Block:
        """So many bytes, all zero."""
        return cls(np.zeros(nbytes, np.uint8), device)

    def address(self, offset: int = 0) -> int:
        """The address, on the device, of the byte at `offset`."""
        return int(self._value.data_ptr()) + offset

    def write(self, array: NDArray[Any]) -> None:
        """Copies an array of the block's own size in."""
        self._value.update_inplace(_bytes(array))

    def read(self, kind: TensorType) -> NDArray[Any]:
        """A copy of the block on the host, as a tensor of that type."""
        array: NDArray[Any] = np.array(self._value.numpy()).view(numpy_dtype(kind.dtype))
        return array.reshape(kind.shape)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
