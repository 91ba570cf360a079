"""Stands in for numpy's and torch's arrays where a pickle of them is read."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.pickle_machine import MOST_VALUES

NUMBERS = "biuf"  # the numpy dtypes admitted, by their `kind`: booleans, integers, floats

BFLOAT16 = "bfloat16"
"""The upper halves of float32, for which numpy has no type."""

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
    "BFloat16Storage": BFLOAT16,
}
"""The numpy types of torch's storages."""

MOST_AXES = 8

BYTES = 2
"""Bytes of a number, on which the largest storage depends."""

LONGEST_CODE = 4
"""Characters of the code of a numpy type, such as `<f8`."""


class Dtype:
    """A stand-in for numpy.dtype while a pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_: bool) -> None:
        if not isinstance(code, str) or len(code) > LONGEST_CODE:
            raise ValueError("an array of another type than numbers")
        self.dtype = np.dtype(code)
        if self.dtype.kind not in NUMBERS:
            raise ValueError(f"an array of {self.dtype}")

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Sets the order of bytes."""
        self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """A stand-in for numpy.ndarray, which is created empty and then filled."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = np.empty(0)

    @property
    def size(self) -> int:
        """The number of values."""
        return self.values.size

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Fills the array."""
        _, shape, dtype, fortran, data = state
        self.values = _read_array(data, dtype, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype)


def storage_numbers(data: bytes, dtype: str) -> NDArray[np.float64]:
    """Returns the numbers of a torch storage, f64[n].

    Raises:
        ValueError: They are too many.
    """
    if len(data) > MOST_VALUES * BYTES:
        raise ValueError(f"a storage of {len(data):,} bytes")
    if dtype != BFLOAT16:
        return np.frombuffer(data, dtype).astype(np.float64)
    upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return upper.view(np.float32).astype(np.float64)


def empty_array(*_: Any) -> Array:
    """Returns what stands for an array, to be filled by its state."""
    return Array()


def scalar(dtype: Dtype, data: bytes) -> float:
    """Returns one of numpy's numbers."""
    return float(_read_array(data, dtype, (), "C"))


def from_buffer(data: Any, dtype: Dtype, shape: Any, order: str) -> NDArray[np.float64]:
    """Returns an array of the bytes of a buffer."""
    return _read_array(data, dtype, shape, order)


def _read_array(data: Any, dtype: Dtype, shape: Any, order: Any) -> NDArray[np.float64]:
    """Returns f64[shape] from raw bytes of `dtype`."""
    if len(data) > MOST_VALUES * dtype.dtype.itemsize:
        raise ValueError(f"more than {MOST_VALUES:,} numbers")
    flat = np.frombuffer(data, dtype=dtype.dtype).astype(np.float64)
    return flat.reshape(shape, order=order)


def strided(
    storage: NDArray[np.float64], offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> NDArray[np.float64]:
    """Returns f64[size]; each element is looked up in the storage, so none lies outside it."""
    most = max(storage.size, 2)
    if len(size) > MOST_AXES or max(size, default=0) > most or math.prod(size) > most:
        raise ValueError("a tensor larger than its storage")
    index = np.array(offset)
    for count, step in zip(size, stride, strict=True):
        index = np.add.outer(index, np.arange(count) * step)
    if index.size and index.min() < 0:
        raise ValueError("a tensor that begins before its storage")
    elements: NDArray[np.float64] = storage[index]
    return elements
