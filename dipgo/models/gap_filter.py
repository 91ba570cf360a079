"""The prediction of a row that is wholly off, as a convolution of earlier predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dipgo.ir.graph import HALF
from dipgo.ir.subnet.gap_filters import GapFilters

FILTERS = "reuse_filters"

PAST = "past."
"""How the names of the predictions that are filtered begin."""


@dataclass(frozen=True, slots=True)
class FilterShape:
    """Of how many predictions a row that is off is made, with or without unconditional halves,
    and the pixels of a filter's side, an odd number.
    """

    terms: int
    halves: bool
    size: int

    @classmethod
    def of(cls, filters: Sequence[GapFilters]) -> FilterShape:
        """What all of a SubNet's filters fit into."""
        halves = any(one.unconditional is not None for one in filters)
        return cls(max(one.terms for one in filters), halves, filters[0].size)

    @classmethod
    def of_table(cls, shape: Sequence[int], read: Iterable[str]) -> FilterShape:
        """Of a table's rows f32[C, K·C, k, k], and of what is read by all that a plan runs."""
        channels, inputs, size, _ = shape
        halves = any(name.startswith(PAST) and name.endswith(HALF) for name in read)
        return cls(inputs // channels // (2 if halves else 1), halves, size)

    def table(self, filters: Sequence[GapFilters]) -> Mapping[int, torch.Tensor]:
        """For the first row of each gap its filters f32[C, K·C, k, k]."""
        return {
            one.rows[0]: torch.from_numpy(one.stacked(self.terms, self.halves)) for one in filters
        }

    @property
    def values(self) -> int:
        """Tensors that go in beside the filters."""
        return self.terms * (2 if self.halves else 1)


class ReuseFilter(nn.Module):
    """Predictions f32[B, C, H, W] and filters f32[C, K·C, k, k] to a prediction f32[B, C, H, W].

    The filters are no weights of the module: each gap of a schedule has its own.
    """

    def forward(self, filters: torch.Tensor, *past: torch.Tensor) -> torch.Tensor:
        """The sum of all predictions, each filtered; beyond the edge they are 0."""
        side = filters.shape[-1]
        return nn.functional.conv2d(torch.cat(past, dim=1), filters, padding=side // 2)


def filter_inputs(latents: torch.Tensor, shape: FilterShape) -> dict[str, torch.Tensor]:
    """Example tensors by name, the filters last. `latents` is an example of the state."""
    channels = latents.shape[1]
    kinds = ("", HALF) if shape.halves else ("",)
    names = [f"{PAST}{index}{kind}" for index in range(shape.terms) for kind in kinds]
    past = {name: torch.zeros_like(latents) for name in names}
    filters = torch.zeros(channels, shape.values * channels, shape.size, shape.size)
    return {**past, FILTERS: filters.to(latents.device)}
