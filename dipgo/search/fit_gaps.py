"""Weights for rows that are wholly off: of which earlier predictions their prediction is made.

A row that computes nothing repeats the latest prediction, which is one long Euler step. Made of
the latest few instead it follows the curve of the dense trajectory, and costs nothing at run
time: the plan adds linear combinations up.

With guidance a prediction is made of two halves, and a long step may want them mixed otherwise
than a short one: the unconditional halves have weights of their own.

Instead of a weight, each prediction may have a filter that mixes its channels with those of its
neighbours: what a step must carry on differs from detail to detail.

The rows between two that compute are a gap. They all make the same prediction: the sampler is
linear, so that a gap is one step, and where it leads depends on a sum of theirs alone. A multistep
sampler reads a gap's last rows after its end as well: the gaps behind are fitted from there.
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
from dipgo.ir.subnet.subnet import RowWeights
from dipgo.search.supernet.trajectory_state import Walk


@dataclass(frozen=True, slots=True)
class Gap:
    """Evaluations from `first` up to `end`, which is not one of them, and their rows."""

    first: int
    end: int
    rows: tuple[int, ...]


def find_gaps(rows: Sequence[int], gates: NDArray[np.bool_]) -> tuple[Gap, ...]:
    """The gaps of gates bool[steps, blocks] in a sampler's `rows`."""
    assert list(rows) == sorted(rows), "a row on both sides of another would be in two gaps"
    found: list[Gap] = []
    for evaluation, row in enumerate(rows):
        if gates[row].any():
            continue
        if found and found[-1].end == evaluation:
            found[-1] = Gap(found[-1].first, evaluation + 1, (*found[-1].rows, row))
        else:
            found.append(Gap(evaluation, evaluation + 1, (row,)))
    return tuple(found)


RIDGE = 1e-4
"""Pull towards repeating the latest prediction, relative to the mean square of what terms do."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights f64[K] of the latest predictions in a gap, and of their halves: `Walk.latest`.

    Or filters f64[K, C, C, k, k], from the third axis to the second. `effects` f64[P, P] are mean
    products of what each weight, or each number of a channel's filters, does at the gap's end.
    """

    gap: Gap
    weights: NDArray[np.float64]
    effects: NDArray[np.float64]


def fit_gap(gap: Gap, walks: Sequence[Walk], dense: Sequence[Sequence[Tensor]], terms: int) -> Fit:
    """Ridge regression of the dense states at the gap's end on the latest predictions.

    `walks` are at the gap's first evaluation; `dense` has the states of each one's example. With
    one prediction there is a choice as well: how long the step is.
    """
    count = min(terms, len(walks[0].latest))
    influence = _influence(walks[0].sampler, gap)
    normal, slope, size = np.zeros((count, count)), np.zeros(count), 0
    for walk, states in zip(walks, dense, strict=True):
        effects = torch.stack([one.flatten() for one in walk.latest[:count]]).double() * influence
        missing = (states[gap.end] - _state_after(walk, gap)).flatten().double()
        normal += (effects @ effects.T).cpu().numpy()
        slope += (effects @ missing).cpu().numpy()
        size += missing.numel()
    repeated = np.eye(count)[0]
    return Fit(gap, repeated + _ridge(normal, slope - normal @ repeated), normal / size)


def fit_filters(
    gap: Gap, walks: Sequence[Walk], dense: Sequence[Sequence[Tensor]], terms: int, size: int
) -> Fit:
    """As `fit_gap`, with filters of `size` × `size` latent pixels, 0 beyond the edge."""
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
    found = _ridge(normal, slope).reshape(count, channels, size, size, channels)
    filters = found.transpose(0, 4, 1, 2, 3).copy()
    filters[0, :, :, size // 2, size // 2] += np.eye(channels)
    return Fit(gap, filters, normal / positions)


def neighbourhoods(values: Tensor, size: int) -> Tensor:
    """f32[B, C, H, W] to f32[C·size·size, B·H·W]: all that a filter sees at every place."""
    seen = torch.nn.functional.unfold(values, size, padding=size // 2)
    return seen.transpose(0, 1).flatten(1)


def _ridge(normal: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to add to repeating the latest prediction."""
    pull = RIDGE * float(np.trace(normal)) / len(normal)
    if not pull:  # the sampler does not use what the gap predicts
        return np.zeros_like(slope)
    return np.asarray(np.linalg.solve(normal + pull * np.eye(len(normal)), slope), np.float64)


def _state_after(walk: Walk, gap: Gap) -> Tensor:
    """The state at the gap's end, were all predictions in it 0."""
    ahead, nothing = walk.copy(), torch.zeros_like(walk.noise)
    return _cross(ahead, gap, nothing)


def _influence(sampler: Sampler, gap: Gap) -> float:
    """What a prediction of 1 all over the gap adds to the state at its end."""
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    past = [zero] * gap.first
    draws = dict.fromkeys(sampler.draws, zero)
    return float(_cross(Walk(sampler, {}, zero, draws, list(past), list(past)), gap, one))


def _cross(walk: Walk, gap: Gap, prediction: Tensor) -> Tensor:
    while walk.index < gap.end:
        walk.add(walk.next_input(), prediction)
    return walk.next_input() if gap.end < len(walk.sampler.rows) else walk.result()


def as_table(fits: Sequence[Fit], steps: int, terms: int) -> NDArray[np.float64]:
    """Weights f64[steps, terms], or filters f64[steps, terms, C, C, k, k], of all gaps.

    Zeros for rows that compute.
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
    """As SubNets have them, of f64[steps, terms, C, C, k, k]: an entry a gap.

    `kinds` is 2 where predictions and their halves come by turns.
    """
    computed = np.cumsum(gates.any(axis=1))
    found = []
    for gap in gaps:
        first = gap.rows[0]
        terms = min(int(computed[first]), filters.shape[1] // kinds)
        own = filters[first, : kinds * terms].astype(np.float32)
        rows = tuple(dict.fromkeys(gap.rows))
        found.append(GapFilters(rows, own[::kinds], own[1::kinds] if kinds == 2 else None))
    return tuple(found)


def as_rows(weights: NDArray[np.float64], gates: NDArray[np.bool_]) -> RowWeights:
    """As SubNets have it: no weights for rows that compute, none beyond the rows computed."""
    computed = np.cumsum(gates.any(axis=1))
    assert not any(weights[row, count:].any() for row, count in enumerate(computed))
    return tuple(
        () if row.any() else tuple(map(float, weights[index, : computed[index]]))
        for index, row in enumerate(gates)
    )
