"""What a gate makes of a block: computed, reused, or a mixture of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dipgo.ir.subnet.backups import Backup

Tensors: TypeAlias = tuple[Tensor, ...]

Gate: TypeAlias = Tensor | bool
"""Between 0 and 1, or a choice: what a gate of False controls is not computed."""

OFF = 0.02
"""Relaxed gates below are choices: their blocks are skipped, and have no gradient."""


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
    """Returns the outputs of a block that was computed, and what is kept of it from now on.

    Both are mixed by the gate with what they are when the block is off: the backup's outputs, and
    what was `kept` before. A block that has never been computed yet mixes with nothing.
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
    """A gate that is all but closed, and one without a gradient at 0 or 1, is a choice."""
    value = float(gate.detach())
    if value < OFF and (skip_closed or not gate.requires_grad):
        return False
    return True if value == 1.0 and not gate.requires_grad else gate


def weighted(weights: Tensor, latest: Sequence[Tensor]) -> Tensor:
    """The sum of the latest predictions by their weights, or of what their filters make of them.

    Those beyond the past do nothing.
    """
    if weights.ndim > 1:
        filters = weights[: len(latest)].transpose(0, 1).flatten(1, 2)
        past = torch.cat(latest[: len(weights)], dim=1)  # type: ignore[arg-type]
        return nn.functional.conv2d(past, filters, padding=filters.shape[-1] // 2)
    terms = [weight * one for weight, one in zip(weights, latest, strict=False)]
    return torch.stack(terms).sum(0)


def shifted(
    latest: tuple[Tensor, ...], new: tuple[Tensor, ...], gate: Tensor
) -> tuple[Tensor, ...]:
    """The latest predictions once a mixture has joined them: each gives way to the one before.

    The oldest comes in from nothing, so that both ends of the gate are those of a choice.
    """
    joined = (*new, *latest)
    moved = (torch.lerp(old, one, gate) for one, old in zip(joined, latest, strict=False))
    return (*moved, *(gate * one for one in joined[len(latest) :]))
