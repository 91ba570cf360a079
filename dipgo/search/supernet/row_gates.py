"""Gates of whole rows, and weights or filters of earlier predictions."""

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
    """Gates of whole rows, f32[steps], and weights f32[steps, K] of the latest predictions.

    K of them, or K/2 and their unconditional halves by turns: what `Walk.latest` has. Filters
    f32[steps, K, C, C, k, k] may take the place of weights.
    """

    gates: Tensor
    weights: Tensor

    def choices(self) -> list[Gate]:
        """A gate a row; row 0 is computed."""
        return [True, *map(choice, self.gates[1:])]


def row_gates(subnet: SubNet) -> RowGates | None:
    """A SubNet's weights of earlier predictions, or its filters.

    With those of halves the SuperNet has `halves`. Raises DipgoError for a SubNet that has both.
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
    kinds = [subnet.reuse, *([subnet.reuse_unconditional] if subnet.reuse_unconditional else [])]
    terms = max(1, *map(len, subnet.reuse))
    weights = torch.zeros(len(subnet.gates), terms, len(kinds))
    for kind, rows in enumerate(kinds):
        for row, numbers in enumerate(rows):
            weights[row, : len(numbers), kind] = torch.tensor(numbers)
    return RowGates(on, weights.flatten(1))


def _filters(subnet: SubNet, filters: Sequence[GapFilters]) -> Tensor:
    """f32[steps, K, C, C, k, k]; rows that are off without filters repeat the latest prediction.

    That is what backups of outputs make of them.
    """
    shape = FilterShape.of(filters)
    channels, size = filters[0].channels, shape.size
    table = torch.zeros(len(subnet.gates), channels, shape.values, channels, size, size)
    table[:, range(channels), 0, range(channels), size // 2, size // 2] = 1.0
    for one in filters:
        own = torch.from_numpy(one.stacked(shape.terms, shape.halves))
        table[list(one.rows)] = own.reshape(channels, shape.values, channels, size, size)
    return table.transpose(1, 2)
