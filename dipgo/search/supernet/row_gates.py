"""Reads, from a SubNet, the gates of whole rows and its weights or filters of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.gap_filter import FilterShape
from dipgo.search.supernet.gating import Gate, choice


@dataclass(frozen=True, slots=True)
class RowGates:
    """Gates of whole rows, and weights or filters of the latest predictions.

    Attributes:
        gates: f32[steps].
        weights: Weights f32[steps, K] or filters f32[steps, K, C, C, k, k] of `Walk.latest`: of K
            predictions, or of K/2 predictions and their unconditional halves, interleaved.
    """

    gates: Tensor
    weights: Tensor

    def choices(self) -> list[Gate]:
        """Returns a gate for each row; row 0 is computed."""
        return [True, *map(choice, self.gates[1:])]


def row_gates(subnet: SubNet) -> RowGates | None:
    """Returns a SubNet's row gates with its weights or filters, or None if it has neither.

    If the SubNet weights unconditional halves, they need a SuperNet with `halves`.

    Raises:
        DipgoError: The SubNet has both weights and filters.
    """
    on = torch.tensor(subnet.gates.any(axis=1), dtype=torch.float32)
    if subnet.reuse_filters:
        if any(subnet.reuse or ()):
            raise DipgoError(
                "SubNet, reuse",
                found="weights for some rows and filters for others",
                expected="one or the other",
                remedy="leave one out to run it on the SuperNet; an export takes both",
            )
        return RowGates(on, _filters(subnet, subnet.reuse_filters))
    if subnet.reuse is None:
        return None
    tables = [subnet.reuse, *([subnet.reuse_unconditional] if subnet.reuse_unconditional else [])]
    terms = max(1, *map(len, subnet.reuse))
    weights = torch.zeros(len(subnet.gates), terms, len(tables))
    for half, rows in enumerate(tables):
        for row, numbers in enumerate(rows):
            weights[row, : len(numbers), half] = torch.tensor(numbers)
    return RowGates(on, weights.flatten(1))


def _filters(subnet: SubNet, filters: Sequence[GapFilters]) -> Tensor:
    """Returns filters f32[steps, K, C, C, k, k].

    Rows that are off and have no filters repeat the latest prediction, as the backup `output` does.
    """
    shape = FilterShape.of(filters)
    channels, size = filters[0].channels, shape.size
    table = torch.zeros(len(subnet.gates), channels, shape.values, channels, size, size)
    table[:, range(channels), 0, range(channels), size // 2, size // 2] = 1.0
    for gap in filters:
        own = torch.from_numpy(gap.stacked(shape.terms, shape.halves))
        table[list(gap.rows)] = own.reshape(channels, shape.values, channels, size, size)
    return table.transpose(1, 2)
