"""Element types, tensor types, values."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

_DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The element type; numpy has none for `bf16`, which never leaves an engine. Or KeyError."""
    return _DTYPES[dtype]


DTYPE_NBYTES = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "u8": 1, "bool": 1}


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and static shape; prints as `f32[2,64,8,8]`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes of a dense tensor of this type."""
        return DTYPE_NBYTES[self.dtype] * prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @classmethod
    def parse(cls, text: str) -> TensorType:
        """The type that prints as `text`; raises ValueError on anything else."""
        dtype, bracket, rest = text.partition("[")
        if dtype not in DTYPE_NBYTES or not bracket or not rest.endswith("]"):
            raise ValueError(f"not a tensor type: {text!r}")
        sizes = rest[:-1].split(",") if rest != "]" else []
        return cls(dtype, tuple(int(size) for size in sizes))


@dataclass(frozen=True, slots=True)
class Value:
    """A named tensor."""

    name: str
    type: TensorType
