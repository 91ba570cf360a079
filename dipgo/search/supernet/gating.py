"""What a gate makes of a block: computed, reused, or a mixture of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

Gate: TypeAlias = Tensor | bool
"""Between 0 and 1, or a choice: what a gate of False controls is not computed."""

OFF = 0.02
"""Relaxed gates below are choices: their blocks are skipped, and have no gradient."""


def reused(cached: tuple[Tensor, ...], before: Tensor | None) -> tuple[Tensor, ...]:
    """With `before` the cache holds a delta, or nothing, which stands for the identity."""
    if before is None:
        return cached
    return (before + cached[0],) if cached else (before,)


def mixed(
    backup: str,
    computed: tuple[Tensor, ...],
    before: Tensor | None,
    gate: Gate,
    cached: tuple[Tensor, ...] | None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """As `SuperNet._block`, of what the block computed."""
    if before is None:
        mixed = _blend(gate, computed, cached)
        return mixed, mixed
    if backup == "identity":
        return _blend(gate, computed, (before,)), ()
    delta = _blend(gate, (computed[0] - before,), cached)
    return (computed if gate is True else (before + delta[0],)), delta


def _blend(
    gate: Gate, new: tuple[Tensor, ...], old: tuple[Tensor, ...] | None
) -> tuple[Tensor, ...]:
    if not isinstance(gate, Tensor) or old is None:
        return new
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
