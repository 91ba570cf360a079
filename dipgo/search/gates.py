"""Gates that can be learned: where their logits come from, and what of them the SuperNet sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dipgo.search.pruner import Pruner
from dipgo.search.settings import Estimator, Parameters

FREE_START = 2.0
"""Logit that free gates start at: 0.88 of each block is its own."""


class FreeLogits(nn.Module):
    """Logits of keeping, f32[steps, blocks], themselves the parameters."""

    def __init__(self, steps: int, blocks: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((steps, blocks), FREE_START))

    def forward(self) -> Tensor:
        """f32[steps, blocks]."""
        return self.logits


def make_parameters(kind: Parameters, steps: int, blocks: int) -> nn.Module:
    """A module without inputs whose output are the logits of keeping, f32[steps, blocks]."""
    match kind:
        case "free":
            return FreeLogits(steps, blocks)
        case "pruner":
            return Pruner(steps, blocks)
        case "pruner-identity":
            return Pruner(steps, blocks, encoder=False)
        case "pruner-shared":
            return Pruner(steps, blocks, shared_heads=True)


def gates_of(logits: Tensor, estimator: Estimator, sharpness: float) -> Tensor:
    """What the SuperNet sees, f32[steps, blocks]; row 0 is kept.

    `relaxed` is the probability of keeping. `straight-through` is 0 or 1, with the gradient of
    the probability: hard − stop(soft) + soft (DiP-GO, section 3.3).
    """
    soft = torch.sigmoid(sharpness * logits)
    soft = torch.cat([torch.ones_like(soft[:1]), soft[1:]])
    if estimator == "relaxed":
        return soft
    return (soft > 0.5).to(soft.dtype) - soft.detach() + soft
