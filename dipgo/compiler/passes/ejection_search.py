"""Ejection search: fits rows into an arena of a set size where greedy placing fails.

Rows that do not fit wait. The heaviest is put where it displaces the least, and the rows that it
displaces wait in turn; a row gains weight each time that it has to displace others. The search is
deterministic.

Source:
    Ejection chains: Glover, "Ejection chains, reference structures and alternating path methods",
    1996.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dipgo.compiler.passes.lane_rows import Conflicts, Integers

UNPLACED = -1
"""The start of a row that waits."""

MOVES_A_ROW, MOVES = 100, 20_000
"""The moves after which the search gives up: on average for each row, and in all."""


def fit(
    sizes: Sequence[int], conflicts: Sequence[Conflicts], starts: Sequence[int], limit: int
) -> list[int] | None:
    """Returns starts for rows of these sizes such that all end by `limit`.

    Args:
        sizes: The size of each row, in units of the alignment like all numbers here.
        conflicts: For each row, the places that other rows keep it from.
        starts: Starts that respect the conflicts, some of whose rows end beyond the limit.
        limit: The size of the arena.

    Returns:
        The starts, or None if the search ends without success.
    """
    placed = np.array(starts, dtype=np.int64)
    tops = limit - np.array(sizes, dtype=np.int64)
    if tops.min() < 0:
        return None
    weights = np.array(sizes, dtype=np.float64)
    waiting = np.flatnonzero(placed > tops).tolist()
    placed[waiting] = UNPLACED
    for _ in range(min(MOVES_A_ROW * len(sizes), MOVES)):
        if not waiting:
            return [int(start) for start in placed]
        row = waiting.pop(int(np.argmax(weights[waiting])))
        near = conflicts[row]
        there = placed[near.other] != UNPLACED
        other = near.other[there]
        low, high = placed[other] + near.low[there], placed[other] + near.high[there]
        start = _least_displacing(low, high, weights[other], int(tops[row]))
        displaced = np.unique(other[(low <= start) & (start < high)])
        if displaced.size:
            weights[row] += sizes[row]
            placed[displaced] = UNPLACED
            waiting.extend(displaced.tolist())
        placed[row] = start
    return None


def _least_displacing(low: Integers, high: Integers, weights: NDArray[np.float64], top: int) -> int:
    """Returns the lowest number in [0, top] at which the intervals [low, high) weigh the least."""
    places = np.concatenate(([0], np.clip(low, 0, None), np.clip(high, 0, None)))
    change = np.concatenate(([0.0], weights, -weights))
    order = np.argsort(places, kind="stable")
    places, weight = places[order], np.cumsum(change[order])
    settled = np.append(places[1:] != places[:-1], True) & (places <= top)
    return int(places[settled][np.argmin(weight[settled])])
