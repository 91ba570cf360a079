"""Fits how rows that are wholly off make their prediction of earlier predictions.

By default a row that computes nothing repeats the latest prediction, which is one long Euler
step. A weighted sum of the latest few predictions follows the curve of the dense trajectory
instead, and costs nothing at run time: the plan adds the linear combinations up.

With guidance a prediction is made of two halves, and a long step may need another mixture of them
than a short one does: the unconditional halves have their own weights.

Instead of a weight, each prediction may have a filter that mixes a latent pixel's channels with
those of its neighbours: the best extrapolation differs from detail to detail.

The rows between two that compute are a gap. They all make the same prediction: the sampler is
linear, so a gap is one step, and its end depends only on a sum of their predictions. A multistep
sampler also reads a gap's last rows after its end: the gaps that follow are fitted from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.gap_weights import RowWeights
from dipgo.models.gap_functions import GapFilter
from dipgo.search.supernet.gating import Prediction
from dipgo.search.supernet.trajectory_state import Walk


@dataclass(frozen=True, slots=True)
class Gap:
    """The evaluations from `first` up to but not including `end`, and their rows."""

    first: int
    end: int
    rows: tuple[int, ...]


def find_gaps(rows: Sequence[int], gates: NDArray[np.bool_]) -> tuple[Gap, ...]:
    """Returns the gaps of gates bool[steps, blocks] in a sampler's `rows`."""
    assert list(rows) == sorted(rows), "a row on both sides of another would be in two gaps"
    gaps: list[Gap] = []
    for evaluation, row in enumerate(rows):
        if gates[row].any():
            continue
        if gaps and gaps[-1].end == evaluation:
            gaps[-1] = Gap(gaps[-1].first, evaluation + 1, (*gaps[-1].rows, row))
        else:
            gaps.append(Gap(evaluation, evaluation + 1, (row,)))
    return tuple(gaps)


RIDGE = 1e-4
"""The pull towards repeating the latest prediction, relative to the mean square of the effects."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The fitted weights or filters of one gap.

    Attributes:
        gap: The gap.
        weights: Weights f64[K] of `Walk.latest`, the latest predictions and their halves; or
            filters f64[K, C, C, k, k] from the channels of the third axis to those of the second.
        effects: Mean products f64[P, P] of the effects at the gap's end, where an effect is what
            one weight, or one number of a channel's filters, adds to the state.
    """

    gap: Gap
    weights: NDArray[np.float64]
    effects: NDArray[np.float64]

    def prediction(self, device: torch.device) -> Tensor | Prediction:
        """Returns what the gap's rows predict by: weights f32[K], or filters."""
        weights = torch.tensor(self.weights, dtype=torch.float32, device=device)
        if weights.ndim == 1:
            return weights
        return _Filters(weights.transpose(0, 1).flatten(1, 2), len(weights))


@dataclass(frozen=True, slots=True)
class _Filters:
    """Filters f32[C, K·C, k, k] of the latest K predictions, halves included."""

    filters: Tensor
    count: int

    def of(self, latest: Sequence[Tensor], kinds: int) -> Tensor:
        """Returns the filtered sum."""
        result: Tensor = GapFilter()(self.filters, *latest[: self.count])
        return result


def fit_gap(gap: Gap, walks: Sequence[Walk], dense: Sequence[Sequence[Tensor]], terms: int) -> Fit:
    """Regresses the dense states at the gap's end on the latest predictions (ridge regression).

    Even a single prediction is worth fitting: its weight is the length of the step.

    Args:
        gap: The gap to fit.
        walks: Trajectories, one an example, at the gap's first evaluation.
        dense: The dense states f32[B, C, h, w] of each walk's example.
        terms: The most weights to fit.
    """
    count = min(terms, len(walks[0].latest))
    influence = _influence(walks[0].sampler, gap)
    normal, slope, size = np.zeros((count, count)), np.zeros(count), 0
    for walk, states in zip(walks, dense, strict=True):
        effects = torch.stack([term.flatten() for term in walk.latest[:count]]).double() * influence
        missing = (states[gap.end] - _state_after(walk, gap)).flatten().double()
        normal += (effects @ effects.T).cpu().numpy()
        slope += (effects @ missing).cpu().numpy()
        size += missing.numel()
    repeated = np.eye(count)[0]
    return Fit(gap, repeated + _ridge(normal, slope - normal @ repeated), normal / size)


def fit_filters(
    gap: Gap, walks: Sequence[Walk], dense: Sequence[Sequence[Tensor]], terms: int, size: int
) -> Fit:
    """Fits as `fit_gap` does, but filters of `size` × `size` latent pixels, 0 beyond the edge."""
    count = min(terms, len(walks[0].latest))
    influence = _influence(walks[0].sampler, gap)
    channels = walks[0].noise.shape[1]
    unknowns = count * channels * size**2
    normal, slope = np.zeros((unknowns, unknowns)), np.zeros((unknowns, channels))
    positions = 0
    for walk, states in zip(walks, dense, strict=True):
        effects = influence * neighbourhoods(torch.cat(walk.latest[:count], 1), size).double()
        repeated = _state_after(walk, gap) + influence * walk.latest[0]
        missing = (states[gap.end] - repeated).double().transpose(0, 1).flatten(1)
        normal += (effects @ effects.T).cpu().numpy()
        slope += (effects @ missing.T).cpu().numpy()
        positions += missing.shape[1]
    solution = _ridge(normal, slope).reshape(count, channels, size, size, channels)
    filters = solution.transpose(0, 4, 1, 2, 3).copy()
    filters[0, :, :, size // 2, size // 2] += np.eye(channels)
    return Fit(gap, filters, normal / positions)


def neighbourhoods(values: Tensor, size: int) -> Tensor:
    """Returns f32[C·size·size, B·H·W], what a filter reads at each pixel of f32[B, C, H, W]."""
    seen = torch.nn.functional.unfold(values, size, padding=size // 2)
    return seen.transpose(0, 1).flatten(1)


def _ridge(normal: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the correction to the solution that repeats the latest prediction."""
    pull = RIDGE * float(np.trace(normal)) / len(normal)
    if not pull:  # the sampler does not use what the gap predicts
        return np.zeros_like(slope)
    return np.asarray(np.linalg.solve(normal + pull * np.eye(len(normal)), slope), np.float64)


def _state_after(walk: Walk, gap: Gap) -> Tensor:
    """Returns the state at the gap's end if all predictions in it were 0."""
    ahead, nothing = walk.copy(), torch.zeros_like(walk.noise)
    return _cross(ahead, gap, nothing)


def _influence(sampler: Sampler, gap: Gap) -> float:
    """Returns what a prediction of 1 throughout the gap adds to the state at its end."""
    zero, unit = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    past = [zero] * gap.first
    draws = dict.fromkeys(sampler.draws, zero)
    return float(_cross(Walk(sampler, {}, zero, draws, list(past), list(past)), gap, unit))


def _cross(walk: Walk, gap: Gap, prediction: Tensor) -> Tensor:
    while walk.index < gap.end:
        walk.add(walk.next_input(), prediction)
    return walk.next_input() if gap.end < len(walk.sampler.rows) else walk.result()


def as_table(fits: Sequence[Fit], steps: int, terms: int) -> NDArray[np.float64]:
    """Returns the weights f64[steps, terms] or filters f64[steps, terms, C, C, k, k] of all gaps.

    Rows that compute have zeros.
    """
    table = (
        np.zeros((steps, terms, *fits[0].weights.shape[1:])) if fits else np.zeros((steps, terms))
    )
    for fit in fits:
        table[list(fit.gap.rows), : len(fit.weights)] = fit.weights
    return table


def as_filters(
    filters: NDArray[np.float64], gaps: Sequence[Gap], gates: NDArray[np.bool_], kinds: int
) -> tuple[GapFilters, ...]:
    """Returns filters in the form of SubNets, one entry a gap.

    Args:
        filters: f64[steps, terms, C, C, k, k].
        gaps: The gaps of `gates`.
        gates: bool[steps, blocks].
        kinds: 2 if predictions and their unconditional halves are interleaved, else 1.
    """
    computed = np.cumsum(gates.any(axis=1))
    entries = []
    for gap in gaps:
        first = gap.rows[0]
        terms = min(int(computed[first]), filters.shape[1] // kinds)
        own = filters[first, : kinds * terms].astype(np.float32)
        rows = tuple(dict.fromkeys(gap.rows))
        entries.append(GapFilters(rows, own[::kinds], own[1::kinds] if kinds == 2 else None))
    return tuple(entries)


def as_rows(weights: NDArray[np.float64], gates: NDArray[np.bool_]) -> RowWeights:
    """Returns weights f64[steps, terms] in the form of SubNets.

    Rows that compute have no weights; other rows have at most one for each earlier row that does.
    """
    computed = np.cumsum(gates.any(axis=1))
    assert not any(weights[row, count:].any() for row, count in enumerate(computed))
    return tuple(
        () if row.any() else tuple(map(float, weights[index, : computed[index]]))
        for index, row in enumerate(gates)
    )
