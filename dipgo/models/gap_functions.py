"""The functions of gap rules: modules that make a prediction of earlier ones, as they are traced.

A new rule with a function has a row in GAP_MODULES.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dipgo.ir.graph import HALF
from dipgo.ir.subnet.gap_filters import FilteredGaps
from dipgo.ir.subnet.gap_rule import GapRule

PAST = "past."
"""The prefix of the names of the predictions that a function reads."""


class GapFilter(nn.Module):
    """Filters earlier predictions f32[B, C, H, W] and sums them to a prediction f32[B, C, H, W].

    The filters f32[C, K·C, k, k] are inputs, not weights: each gap of a schedule has its own.
    """

    def forward(self, filters: torch.Tensor, *past: torch.Tensor) -> torch.Tensor:
        """Returns the sum of all predictions, each filtered; beyond the edge they are 0."""
        side = filters.shape[-1]
        return nn.functional.conv2d(torch.cat(past, dim=1), filters, padding=side // 2)


GAP_MODULES: dict[str, type[nn.Module]] = {FilteredGaps.key: GapFilter}
"""The function of each gap rule that has one, by the rule's key.

It is called with a row of the rule's table, then with the latest predictions.
"""


@dataclass(frozen=True, slots=True)
class GapShape:
    """A gap rule's function and the shapes of its inputs.

    Attributes:
        key: The rule's key.
        terms: The number of earlier predictions that are read.
        halves: Whether each is followed by its unconditional half.
        table: The shape of a row of the table.
    """

    key: str
    terms: int
    halves: bool
    table: tuple[int, ...]

    @classmethod
    def of(cls, rule: GapRule) -> GapShape:
        """Returns the smallest shape that all numbers of a rule fit into."""
        row, *_ = rule.numbers(rule.terms, rule.halves).values()
        return cls(rule.key, rule.terms, rule.halves, row.shape)

    @classmethod
    def of_table(cls, key: str, table: Sequence[int], read: Iterable[str]) -> GapShape:
        """Returns the shape for a plan's table.

        Args:
            key: The table's name.
            table: The shape of a row of the table.
            read: Names of all values that the plan's calls read.
        """
        past = {name for name in read if name.startswith(PAST)}
        halves = {name for name in past if name.endswith(HALF)}
        return cls(key, len(past - halves), bool(halves), tuple(table))

    def module(self) -> nn.Module:
        """Returns the function."""
        return GAP_MODULES[self.key]()

    def example_inputs(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns example tensors by name, the table's row last; `latents` is an example state."""
        suffixes = ("", HALF) if self.halves else ("",)
        names = [f"{PAST}{index}{suffix}" for index in range(self.terms) for suffix in suffixes]
        past = {name: torch.zeros_like(latents) for name in names}
        return {**past, self.key: torch.zeros(self.table, device=latents.device)}

    def numbers(self, rule: GapRule) -> Mapping[int, torch.Tensor]:
        """Returns the table of a rule by row."""
        numbers = rule.numbers(self.terms, self.halves)
        return {row: torch.from_numpy(array) for row, array in numbers.items()}

    @property
    def values(self) -> int:
        """The number of tensors that go in besides the table's row."""
        return self.terms * (2 if self.halves else 1)
