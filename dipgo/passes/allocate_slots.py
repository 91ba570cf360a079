"""Liveness and slot allocation: every value gets bytes of one arena, reused when it is dead.

Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
2020, section 5.2): the largest value first, each at the lowest offset that is free while it lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from dipgo.plan import Call, Plan, Slot, reads, value_types, writes

GAP = 1.01
"""Over the lower bound: an arena within this is not worth a longer search."""

ALIGNMENT = 64
"""Bytes; a cache line, and enough for every engine's vector loads."""


@dataclass(frozen=True, slots=True)
class LiveRange:
    """The statements, first to last, during which a value may not be overwritten."""

    value: str
    first: int
    last: int
    nbytes: int


def live_ranges(plan: Plan) -> tuple[LiveRange, ...]:
    """The live range of every value that a statement writes; plan inputs lie outside the arena."""
    types = value_types(plan)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for position, statement in enumerate(plan.statements):
        for name in reads(statement):
            last[name] = position
        for name in writes(statement):
            first[name] = last[name] = position
    last[plan.result] = len(plan.statements)
    return tuple(
        LiveRange(name, start, last[name], types[name].nbytes) for name, start in first.items()
    )


def allocate_slots(plan: Plan) -> Plan:
    """Gives every value a slot such that no two values that live together share a byte."""
    rows, enough = _rows(plan), GAP * lower_bound_nbytes(plan)
    size = _end(rows)
    tried: list[dict[str, int]] = []
    for offsets in _placements(rows):
        tried.append(offsets)
        if size(offsets) <= enough:
            break
    offsets = min(tried, key=size)
    slots = (Slot(one.value, offsets[one.value], one.nbytes) for one in live_ranges(plan))
    return replace(plan, slots=tuple(slots))


Row: TypeAlias = tuple[LiveRange, ...]
"""Live ranges that need offsets side by side: the lanes of an output, else one value."""


def _nbytes(row: Row) -> int:
    return sum(one.nbytes for one in row)


def _lifetime(row: Row) -> int:
    return max(one.last for one in row) - row[0].first


_ORDERS: tuple[Callable[[Row], tuple[Any, ...]], ...] = (
    lambda row: (-_nbytes(row), row[0].first, row[0].value),
    lambda row: (-len(row), -_nbytes(row), row[0].first, row[0].value),
    lambda row: (-_nbytes(row) * _lifetime(row), row[0].first, row[0].value),
    lambda row: (-_lifetime(row), -_nbytes(row), row[0].first, row[0].value),
    lambda row: (row[0].first, -_nbytes(row), row[0].value),
)
"""In which order rows are placed; none is best for every plan."""


def _end(rows: Sequence[Row]) -> Callable[[dict[str, int]], int]:
    """The arena's size, given the offsets of all values."""
    ranges = [one for row in rows for one in row]
    return lambda offsets: max(offsets[one.value] + one.nbytes for one in ranges)


def _placements(rows: Sequence[Row]) -> Iterator[dict[str, int]]:
    """Offsets found in several ways: first those in which the lanes of a row end together.

    That is quickly done, and often as good: most rows of many lanes live when little else does.
    """
    for order in _ORDERS:
        yield _place_whole(sorted(rows, key=order))
    for order in _ORDERS:
        yield _place(sorted(rows, key=order))


def _place_whole(rows: Sequence[Row]) -> dict[str, int]:
    """Places each row as if it were one value."""
    wholes = [
        LiveRange(row[0].value, row[0].first, max(one.last for one in row), _nbytes(row))
        for row in rows
    ]
    starts = _place([(whole,) for whole in wholes])
    offsets: dict[str, int] = {}
    for row in rows:
        offset = starts[row[0].value]
        for one in row:
            offsets[one.value] = offset
            offset += one.nbytes
    return offsets


def _place(rows: Sequence[Row]) -> dict[str, int]:
    """Gives each row, in this order, the lowest offset that is free while it lives."""
    placed = _Placed(sum(map(len, rows)))
    offsets: dict[str, int] = {}
    for row in rows:
        offset = placed.lowest_offset(row)
        for one in row:
            placed.add(one, offset)
            offsets[one.value] = offset
            offset += one.nbytes
    return offsets


def _rows(plan: Plan) -> list[Row]:
    ranges = {one.value: one for one in live_ranges(plan)}
    rows: list[Row] = []
    for statement in plan.statements:
        names = statement.outputs if isinstance(statement, Call) else ((statement.result,),)
        rows.extend(tuple(ranges[name] for name in lanes) for lanes in names)
    return rows


class _Placed:
    """The values that have their offsets."""

    def __init__(self, capacity: int) -> None:
        self.count = 0
        self.first, self.last, self.start, self.end = np.zeros((4, capacity), dtype=np.int64)

    def add(self, one: LiveRange, offset: int) -> None:
        row = self.count
        self.first[row], self.last[row] = one.first, one.last
        self.start[row], self.end[row] = offset, offset + one.nbytes
        self.count += 1

    def lowest_offset(self, row: Row) -> int:
        """The lowest aligned offset at which `row` lies clear of all that lives with it.

        Each value that lives with a member of the row forbids a range of offsets to the row.
        """
        forbidden_from, forbidden_to, before = [], [], 0
        for one in row:
            placed = slice(self.count)
            together = (self.first[placed] <= one.last) & (self.last[placed] >= one.first)
            low = self.start[placed][together] - before - one.nbytes
            forbidden_from.append(low // ALIGNMENT + 1)
            forbidden_to.append(-(-(self.end[placed][together] - before) // ALIGNMENT))
            before += one.nbytes
        return ALIGNMENT * _lowest_free(
            np.concatenate(forbidden_from), np.concatenate(forbidden_to)
        )


def _lowest_free(starts: np.ndarray, ends: np.ndarray) -> int:
    """The lowest number, 0 or more, that is in none of [start, end)."""
    order = np.argsort(starts, kind="stable")
    free_from = np.maximum.accumulate(np.concatenate(([0], ends[order])))
    free = np.append(starts[order], np.iinfo(np.int64).max) > free_from
    return int(free_from[np.argmax(free)])


def lower_bound_nbytes(plan: Plan) -> int:
    """The largest sum of bytes that live at one statement: no allocation can use less."""
    change = np.zeros(len(plan.statements) + 2, dtype=np.int64)
    for one in live_ranges(plan):
        change[one.first] += one.nbytes
        change[one.last + 1] -= one.nbytes
    return int(np.cumsum(change).max())


def naive_nbytes(plan: Plan) -> int:
    """Bytes of an allocation that never uses memory again."""
    return sum(one.nbytes for one in live_ranges(plan))
