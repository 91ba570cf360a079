"""What stands for a module's weights: two modules with the same have the same outputs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class Hash(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes, /) -> None: ...


def add_weights(digest: Hash, module: nn.Module) -> None:
    """Adds name, type, shape and bytes of every parameter and buffer, in the module's order."""
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
