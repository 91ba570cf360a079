"""Weights for rows that are wholly off: of which earlier predictions their prediction is made.

A row that computes nothing repeats the latest prediction, which is one long Euler step. Made of
the latest few instead it follows the curve of the dense trajectory, and costs nothing at run
time: the plan adds linear combinations up.

With guidance a prediction is made of two halves, and a long step may want them mixed otherwise
than a short one: the unconditional halves have weights of their own.

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

from dipgo.sampler import Sampler
from dipgo.search.walk import Walk
from dipgo.subnet import RowWeights

RIDGE = 1e-4
"""Pull towards repeating the latest prediction, relative to the mean square of what terms do."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Evaluations from `first` up to `end`, which is not one of them, and their rows."""

    first: int
    end: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights f64[K] of the latest predictions in a gap, and of their halves: `Walk.latest`.

    `effects` f64[K, K] are mean products of what each weight does to the state at the gap's end.
    """

    gap: Gap
    weights: NDArray[np.float64]
    effects: NDArray[np.float64]


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
    pull = RIDGE * float(np.trace(normal)) / count
    if not pull:  # the sampler does not use what the gap predicts
        return Fit(gap, repeated, normal)
    solution = np.linalg.solve(normal + pull * np.eye(count), slope - normal @ repeated)
    return Fit(gap, repeated + solution, normal / size)


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
    """Weights f64[steps, terms] of all gaps; zeros for rows that compute."""
    table = np.zeros((steps, terms))
    for fit in fits:
        table[list(fit.gap.rows), : len(fit.weights)] = fit.weights
    return table


def as_rows(weights: NDArray[np.float64], gates: NDArray[np.bool_]) -> RowWeights:
    """As SubNets have it: no weights for rows that compute, none beyond the rows computed."""
    computed = np.cumsum(gates.any(axis=1))
    assert not any(weights[row, count:].any() for row, count in enumerate(computed))
    return tuple(
        () if row.any() else tuple(map(float, weights[index, : computed[index]]))
        for index, row in enumerate(gates)
    )
