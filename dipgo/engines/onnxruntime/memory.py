"""Memory that calls are bound to: OrtValues whose addresses never change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.graph import TensorType

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


class Block:
    """Bytes on a device (`cpu` or `cuda`), laid out as one array."""

    def __init__(self, array: NDArray[Any], device: str) -> None:
        import onnxruntime

        self._array = np.ascontiguousarray(array)
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy(self._array, device, 0)

    @classmethod
    def empty(cls, kind: TensorType, device: str) -> Block:
        """A block that holds one tensor."""
        return cls(np.zeros(kind.shape, NUMPY_DTYPES[kind.dtype]), device)

    @classmethod
    def arena(cls, nbytes: int, device: str) -> Block:
        """A block of bytes in which tensors live at offsets."""
        return cls(np.zeros(max(nbytes, 1), np.uint8), device)

    def address(self, offset: int = 0) -> int:
        """The address, on the device, of the byte at `offset`."""
        return int(self._value.data_ptr()) + offset

    def write(self, array: NDArray[Any]) -> None:
        """Copies an array of the block's own shape and type in."""
        self._value.update_inplace(np.ascontiguousarray(array))

    def read(self) -> NDArray[Any]:
        """A copy of the whole block on the host."""
        return np.array(self._value.numpy())
