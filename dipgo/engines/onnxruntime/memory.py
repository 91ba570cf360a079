"""Allocates the memory that launches are bound to: OrtValues whose addresses never change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.types import TensorType, numpy_dtype


class Block:
    """Bytes on a device (`cpu` or `cuda`)."""

    def __init__(self, array: NDArray[np.uint8], device: str) -> None:
        import onnxruntime

        # On the CPU the OrtValue uses the array's own memory, so the array must be kept.
        self._array = array
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)

    @classmethod
    def of_bytes(cls, nbytes: int, device: str) -> Block:
        """Returns a block of `nbytes` bytes, all zero."""
        return cls(np.zeros(nbytes, np.uint8), device)

    def address(self, offset: int = 0) -> int:
        """Returns the address, on the device, of the byte at `offset`."""
        return int(self._value.data_ptr()) + offset

    def write(self, array: NDArray[Any]) -> None:
        """Copies in an array of the block's size."""
        self._value.update_inplace(_bytes(array))

    def read(self, tensor_type: TensorType) -> NDArray[Any]:
        """Returns a copy of the block on the host, as a tensor of that type."""
        array: NDArray[Any] = np.array(self._value.numpy()).view(numpy_dtype(tensor_type.dtype))
        return array.reshape(tensor_type.shape)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
