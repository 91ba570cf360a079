"""Rows: values that need offsets side by side, and the rows that may not overlap them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dipgo.compiler.passes.live_ranges import LiveRange, live_ranges
from dipgo.ir.plan.nodes import Call
from dipgo.ir.plan.plan import Plan

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """The lanes of one output of a batched call, or a single value."""

    members: tuple[LiveRange, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all members."""
        return sum(member.nbytes for member in self.members)

    @property
    def before(self) -> tuple[int, ...]:
        """The bytes from the row's start to each member."""
        return tuple(accumulate((member.nbytes for member in self.members[:-1]), initial=0))

    @property
    def first(self) -> int:
        """The statement that writes the row."""
        return self.members[0].first

    @property
    def last(self) -> int:
        """The last statement that reads any member."""
        return max(member.last for member in self.members)

    def whole(self) -> Row:
        """Returns the row as if all of it were needed for as long as any of it is."""
        value = self.members[0].value
        return Row((LiveRange(value, self.first, self.last, self.nbytes),))


def find_rows(plan: Plan) -> list[Row]:
    """Returns a row for every output of every call, and for every combination."""
    ranges = {live_range.value: live_range for live_range in live_ranges(plan)}
    rows: list[Row] = []
    for statement in plan.statements:
        outputs = statement.outputs if isinstance(statement, Call) else ((statement.result,),)
        rows.extend(Row(tuple(ranges[name] for name in lanes)) for lanes in outputs)
    return rows


@dataclass(frozen=True, slots=True)
class Conflicts:
    """The starts that other rows forbid to a row, in units of the alignment.

    They reach from x + low[k] to x + high[k], the end excluded, where x is the start of row
    other[k].
    """

    other: Integers
    low: Integers
    high: Integers


def find_conflicts(rows: Sequence[Row], alignment: int) -> list[Conflicts]:
    """Returns, for each row, the conflicts with all rows that live while some part of it lives.

    Args:
        rows: The rows to place.
        alignment: The unit of the conflicts, in bytes.
    """
    members = [member for row in rows for member in row.members]
    first, last, nbytes = np.array([(m.first, m.last, m.nbytes) for m in members]).T
    owner = np.repeat(np.arange(len(rows)), [len(row.members) for row in rows])
    before = np.array([offset for row in rows for offset in row.before])
    conflicts, index = [], 0
    for number, row in enumerate(rows):
        parts = []
        for _ in row.members:
            near = np.flatnonzero(
                (first <= last[index]) & (last >= first[index]) & (owner != number)
            )
            low = (before[near] - before[index] - nbytes[index]) // alignment + 1
            high = -((before[index] - before[near] - nbytes[near]) // alignment)
            parts.append(np.stack([owner[near], low, high]))
            index += 1
        conflicts.append(_merged(np.concatenate(parts, axis=1)))
    return conflicts


def _merged(ranges: Integers) -> Conflicts:
    """Joins ranges of the same other row that overlap or touch."""
    other, low, high = ranges[:, np.lexsort((ranges[1], ranges[0]))]
    if not len(other):
        return Conflicts(other, low, high)
    new = np.append(True, (other[1:] != other[:-1]) | (low[1:] > high[:-1]))
    return Conflicts(other[new], low[new], np.maximum.reduceat(high, np.flatnonzero(new)))
