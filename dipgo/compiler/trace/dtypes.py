"""Converts between torch's element types and the plan's."""

from __future__ import annotations

import torch

from dipgo.ir.types import ELEMENT_TYPES, TensorType

TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, element.torch) for name, element in ELEMENT_TYPES.items()
}

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """Returns the type of a tensor with a static shape."""
    return TensorType(_NAMES[tensor.dtype], tuple(int(size) for size in tensor.shape))
