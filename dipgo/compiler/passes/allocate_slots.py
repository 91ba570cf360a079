"""Slot allocation: every value gets bytes of one arena, reused when it is dead.

Greedy (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020,
section 5.2): rows are placed one after another, each at the lowest offset that is free while it
lives, in several orders. If the best arena is still above the lower bound, an ejection search
improves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dipgo.compiler.passes.ejection_search import UNPLACED, fit
from dipgo.compiler.passes.lane_rows import Conflicts, Row, find_conflicts, find_rows
from dipgo.compiler.passes.live_ranges import live_ranges, lower_bound_nbytes
from dipgo.ir.plan.nodes import Slot
from dipgo.ir.plan.plan import Plan

ALIGNMENT = 64
"""The bytes of a cache line, which suffice for every engine's vector loads."""

GAP = 1.01
"""The size, over the lower bound, of an arena that is not worth a longer search."""

LIMITS = (1.1, 1.045)
"""The sizes, over the lower bound, that the search tries in turn while it succeeds."""

MAX_MEMBERS = 30_000
"""The number of values up to which each lane is placed with its own live range.

The search compares values pair by pair; with more of them, the lanes of a row end together.
"""


def allocate_slots(plan: Plan) -> Plan:
    """Gives every value a slot such that no two values that live together share a byte."""
    rows = find_rows(plan)
    starts = _place(rows, lower_bound_nbytes(plan) / ALIGNMENT)
    offsets = {
        live_range.value: ALIGNMENT * start + before
        for row, start in zip(rows, starts, strict=True)
        for live_range, before in zip(row.members, row.before, strict=True)
    }
    slots = (
        Slot(live_range.value, offsets[live_range.value], live_range.nbytes)
        for live_range in live_ranges(plan)
    )
    return replace(plan, slots=tuple(slots))


def _place(rows: Sequence[Row], bound: float) -> Sequence[int]:
    """Returns the start of each row; like `bound` it is counted in units of the alignment."""
    sizes = [-(-row.nbytes // ALIGNMENT) for row in rows]
    best: Sequence[int] = []
    for shapes in _shapes(rows):
        conflicts = find_conflicts(shapes, ALIGNMENT)
        for starts in _attempts(shapes, sizes, conflicts, bound):
            if not best or _end(starts, sizes) < _end(best, sizes):
                best = starts
            if _end(best, sizes) <= GAP * bound:
                return best
    return best


def _shapes(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yields the rows as if their lanes ended together, then the rows as they are.

    The first are quick to place and often place as well.
    """
    yield [row.whole() for row in rows]
    members = sum(len(row.members) for row in rows)
    if len(rows) < members <= MAX_MEMBERS:
        yield rows


def _attempts(
    rows: Sequence[Row], sizes: Sequence[int], conflicts: Sequence[Conflicts], bound: float
) -> Iterator[Sequence[int]]:
    """Yields starts from placing the rows in several orders, then by searching from the best."""
    placed = []
    for key in _ORDERS:
        order = sorted(range(len(rows)), key=[key(row) for row in rows].__getitem__)
        placed.append(_place_in_order(order, conflicts))
        yield placed[-1]
    best = min(placed, key=lambda starts: _end(starts, sizes))
    for limit in LIMITS:
        if _end(best, sizes) > limit * bound:
            improved = fit(sizes, conflicts, best, int(limit * bound))
            if improved is None:
                return
            best = improved
            yield best


_ORDERS: tuple[Callable[[Row], tuple[Any, ...]], ...] = (
    lambda row: (-row.nbytes, row.first),
    lambda row: (-len(row.members), -row.nbytes, row.first),
    lambda row: (-row.nbytes * (row.last - row.first), row.first),
    lambda row: (row.first - row.last, -row.nbytes, row.first),
    lambda row: (row.first, -row.nbytes),
)
"""The orders in which rows are placed; none is best for every plan."""


def _place_in_order(order: Sequence[int], conflicts: Sequence[Conflicts]) -> Sequence[int]:
    """Gives each row, in this order, the lowest start that is free."""
    starts = np.full(len(order), UNPLACED, dtype=np.int64)
    for row in order:
        near = conflicts[row]
        placed = starts[near.other] != UNPLACED
        base = starts[near.other[placed]]
        starts[row] = _lowest_free(base + near.low[placed], base + near.high[placed])
    return starts.tolist()


def _lowest_free(low: np.ndarray, high: np.ndarray) -> int:
    """Returns the lowest number, 0 or more, that is in none of [low, high)."""
    order = np.argsort(low, kind="stable")
    free_from = np.maximum.accumulate(np.concatenate(([0], high[order])))
    free = np.append(low[order], np.iinfo(np.int64).max) > free_from
    return int(free_from[np.argmax(free)])


def _end(starts: Sequence[int], sizes: Sequence[int]) -> int:
    return max((start + size for start, size in zip(starts, sizes, strict=True)), default=0)
