"""Element types, tensor types and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
"""The largest number that is finite in float32, in which plans compute."""

PrecisionName = Literal["fp32", "fp16", "bf16"]


LARGEST = 2**48
"""Bytes of a tensor or region: fewer than this, in all files."""


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type under the names that other libraries and file formats have for it.

    Attributes:
        nbytes: Size of an element in bytes.
        numpy: Name in numpy, None where numpy lacks the type: it then never leaves an engine.
        torch: Name in PyTorch.
        onnx: Number in ONNX, `TensorProto.DataType`.
        triton: Name in a Triton model's configuration, `inference.DataType`.
        precision: Name under which an export may compute in it. Linear combinations are of
            such types alone.
        combine_file: The graph of linear combinations of such a type.
    """

    nbytes: int
    numpy: str | None
    torch: str
    onnx: int
    triton: str
    precision: PrecisionName | None = None
    combine_file: str | None = None


ELEMENT_TYPES: Mapping[str, ElementType] = {
    "f64": ElementType(8, "float64", "float64", 11, "TYPE_FP64"),
    "f32": ElementType(4, "float32", "float32", 1, "TYPE_FP32", "fp32", "combine.onnx"),
    "f16": ElementType(2, "float16", "float16", 10, "TYPE_FP16", "fp16", "combine_f16.onnx"),
    "bf16": ElementType(2, None, "bfloat16", 16, "TYPE_BF16", "bf16", "combine_bf16.onnx"),
    "i64": ElementType(8, "int64", "int64", 7, "TYPE_INT64"),
    "i32": ElementType(4, "int32", "int32", 6, "TYPE_INT32"),
    "u8": ElementType(1, "uint8", "uint8", 2, "TYPE_UINT8"),
    "bool": ElementType(1, "bool", "bool", 9, "TYPE_BOOL"),
}
"""Every element type, by its name in plans and manifests."""

PRECISIONS: Mapping[str, ElementType] = {
    element.precision: element for element in ELEMENT_TYPES.values() if element.precision
}
"""The element types that an export may compute in, by the names that users have for them."""

COMBINE_FILES: Mapping[str, str] = {
    name: element.combine_file for name, element in ELEMENT_TYPES.items() if element.combine_file
}
"""The graphs of linear combinations, by element type; an export has those that its plan needs."""


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Returns numpy's type for an element type.

    Raises:
        KeyError: There is no such element type, or numpy lacks it.
    """
    name = ELEMENT_TYPES[dtype].numpy
    if name is None:
        raise KeyError(dtype)
    return np.dtype(name)


@dataclass(frozen=True, slots=True)
class TensorType:
    """An element type and a static shape; prints as `f32[2,64,8,8]`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size in bytes of a dense tensor of this type."""
        return ELEMENT_TYPES[self.dtype].nbytes * prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @classmethod
    def parse(cls, text: str) -> TensorType:
        """Returns the type that prints as `text`.

        Raises:
            ValueError: No type does, or its tensors would have LARGEST bytes or more.
        """
        dtype, bracket, rest = text.partition("[")
        if dtype not in ELEMENT_TYPES or not bracket or not rest.endswith("]"):
            raise ValueError(f"not a tensor type: {text!r}")
        sizes = rest[:-1].split(",") if rest != "]" else []
        if not all(size.isascii() and size.isdigit() and len(size) < 16 for size in sizes):
            raise ValueError(f"not a tensor type: {text!r}")
        parsed = cls(dtype, tuple(int(size) for size in sizes))
        if parsed.nbytes >= LARGEST:
            raise ValueError(f"a tensor of 2**48 bytes or more: {text}")
        return parsed


@dataclass(frozen=True, slots=True)
class Value:
    """A named tensor."""

    name: str
    type: TensorType
