"""Predicts for a row that is wholly off by a convolution of earlier predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dipgo.ir.graph import HALF
from dipgo.ir.subnet.gap_filters import GapFilters

FILTERS = "reuse_filters"

PAST = "past."
"""The prefix of the names of the predictions that are filtered."""


@dataclass(frozen=True, slots=True)
class FilterShape:
    """The size of a filter: its earlier predictions, their halves and its side.

    `terms` counts the earlier predictions that are mixed, `halves` says whether their
    unconditional halves are too, and `size` is the filter's side in pixels, an odd number.
    """

    terms: int
    halves: bool
    size: int

    @classmethod
    def of(cls, filters: Sequence[GapFilters]) -> FilterShape:
        """Returns the smallest shape that all filters of a SubNet fit into."""
        halves = any(gap.unconditional is not None for gap in filters)
        return cls(max(gap.terms for gap in filters), halves, filters[0].size)

    @classmethod
    def of_table(cls, shape: Sequence[int], read: Iterable[str]) -> FilterShape:
        """Returns the shape of the filters in a plan's table.

        Args:
            shape: Shape of a row of the table, f32[C, K·C, k, k].
            read: Names of all values that the plan's calls read.
        """
        channels, inputs, size, _ = shape
        halves = any(name.startswith(PAST) and name.endswith(HALF) for name in read)
        return cls(inputs // channels // (2 if halves else 1), halves, size)

    def table(self, filters: Sequence[GapFilters]) -> Mapping[int, torch.Tensor]:
        """Returns the filters f32[C, K·C, k, k] of each gap, by the gap's first row."""
        return {
            gap.rows[0]: torch.from_numpy(gap.stacked(self.terms, self.halves)) for gap in filters
        }

    @property
    def values(self) -> int:
        """The number of tensors that go in besides the filters."""
        return self.terms * (2 if self.halves else 1)


class ReuseFilter(nn.Module):
    """Filters earlier predictions f32[B, C, H, W] and sums them to a prediction f32[B, C, H, W].

    The filters f32[C, K·C, k, k] are inputs, not weights: each gap of a schedule has its own.
    """

    def forward(self, filters: torch.Tensor, *past: torch.Tensor) -> torch.Tensor:
        """Returns the sum of all predictions, each filtered; beyond the edge they are 0."""
        side = filters.shape[-1]
        return nn.functional.conv2d(torch.cat(past, dim=1), filters, padding=side // 2)


def filter_inputs(latents: torch.Tensor, shape: FilterShape) -> dict[str, torch.Tensor]:
    """Returns example tensors by name, the filters last; `latents` is an example of the state."""
    channels = latents.shape[1]
    suffixes = ("", HALF) if shape.halves else ("",)
    names = [f"{PAST}{index}{suffix}" for index in range(shape.terms) for suffix in suffixes]
    past = {name: torch.zeros_like(latents) for name in names}
    filters = torch.zeros(channels, shape.values * channels, shape.size, shape.size)
    return {**past, FILTERS: filters.to(latents.device)}
