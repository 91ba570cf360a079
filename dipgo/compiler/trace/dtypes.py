"""Between torch's element types and the plan's."""

from __future__ import annotations

import torch

from dipgo.ir.types import TensorType

TORCH_DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "u8": torch.uint8,
    "bool": torch.bool,
}

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """The type of a tensor with a static shape."""
    return TensorType(_NAMES[tensor.dtype], tuple(int(size) for size in tensor.shape))
