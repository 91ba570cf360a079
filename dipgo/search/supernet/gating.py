"""Applies a gate to a block: computes it, reuses it, or mixes both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dipgo.ir.subnet.backups import Backup

Tensors: TypeAlias = tuple[Tensor, ...]

Gate: TypeAlias = Tensor | bool
"""A number between 0 and 1, or a choice: the block of a gate that is False is not computed."""

OFF = 0.02
"""The value below which relaxed gates are choices: their blocks are skipped, without gradient."""


def combined(terms: tuple[tuple[float, Tensor], ...]) -> Tensor:
    """Returns the sum of coefficient · tensor."""
    (coefficient, first), *rest = terms
    total = first if coefficient == 1.0 else coefficient * first
    for coefficient, tensor in rest:
        total = torch.add(total, tensor, alpha=coefficient)
    return total


def gated(
    backup: Backup, gate: Gate, computed: Tensors, entered: Tensor, kept: Tensors | None
) -> tuple[Tensors, Tensors]:
    """Returns the outputs of a block that was computed, and the tensors kept of it from now on.

    The gate mixes both with their values when the block is off: the backup's outputs, and the
    tensors `kept` before. A block that is computed for the first time mixes with nothing.

    Args:
        backup: The block's backup.
        gate: The gate; if it is True, nothing is mixed.
        computed: The block's outputs.
        entered: The input that the block adds to.
        kept: The tensors kept so far; None before the block was ever computed.
    """
    fresh = backup.keep(computed, entered, combined)
    if kept is None or not isinstance(gate, Tensor):
        return computed, fresh
    reused = backup.reuse(kept, entered, combined)
    outputs = _blend(gate, computed, reused)
    if fresh is computed and reused is kept:  # one mixture serves for both
        return outputs, outputs
    return outputs, _blend(gate, fresh, kept)


def _blend(gate: Tensor, new: Tensors, old: Tensors) -> Tensors:
    return tuple(torch.lerp(before, now, gate) for now, before in zip(new, old, strict=True))


def choice(gate: Tensor, skip_closed: bool = True) -> Gate:
    """Returns a choice for a gate that is all but closed, or at 0 or 1 without a gradient.

    Args:
        gate: f32[] from 0 to 1.
        skip_closed: Whether gates below OFF that have a gradient are choices too.
    """
    value = float(gate.detach())
    if value < OFF and (skip_closed or not gate.requires_grad):
        return False
    return True if value == 1.0 and not gate.requires_grad else gate


class Prediction(Protocol):
    """The way in which one row that is off makes its prediction."""

    def of(self, latest: Sequence[Tensor], kinds: int) -> Tensor:
        """Returns the prediction.

        Args:
            latest: The latest predictions f32[B, …], the newest first.
            kinds: 2 if each is followed by its unconditional half, else 1.
        """


def predicted(row: Tensor | Prediction, latest: Sequence[Tensor], kinds: int) -> Tensor:
    """Returns the prediction of a row that is off.

    Args:
        row: Weights f32[K], which may have a gradient, or another way; weights beyond the number
            of predictions do nothing.
        latest: The latest predictions f32[B, …], the newest first.
        kinds: 2 if each is followed by its unconditional half, else 1.
    """
    if not isinstance(row, Tensor):
        return row.of(latest, kinds)
    terms = [weight * prediction for weight, prediction in zip(row, latest, strict=False)]
    return torch.stack(terms).sum(0)


def shifted(
    latest: tuple[Tensor, ...], new: tuple[Tensor, ...], gate: Tensor
) -> tuple[Tensor, ...]:
    """Returns the latest predictions after `new` ones joined them to the degree of `gate`.

    Each place mixes its own prediction with the one that moves into it. The oldest moves into
    nothing, so that a gate of 0 and a gate of 1 give the results of the two choices.
    """
    joined = (*new, *latest)
    moved = (torch.lerp(old, newer, gate) for newer, old in zip(joined, latest, strict=False))
    return (*moved, *(gate * oldest for oldest in joined[len(latest) :]))
