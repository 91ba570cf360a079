"""Liveness: the statements during which each value of a plan is needed, and the bytes they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dipgo.ir.plan.plan import Plan, value_types


@dataclass(frozen=True, slots=True)
class LiveRange:
    """The statements, first to last, during which a value may not be overwritten."""

    value: str
    first: int
    last: int
    nbytes: int


def live_ranges(plan: Plan) -> tuple[LiveRange, ...]:
    """Returns the live range of every value that a statement writes.

    Plan inputs lie outside the arena.
    """
    types = value_types(plan)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for position, statement in enumerate(plan.statements):
        for name in statement.reads:
            last[name] = position
        for name in statement.writes:
            first[name] = last[name] = position
    last[plan.result] = len(plan.statements)
    return tuple(
        LiveRange(name, start, last[name], types[name].nbytes) for name, start in first.items()
    )


def lower_bound_nbytes(plan: Plan) -> int:
    """Returns the largest sum of bytes that live at one statement: no allocation can use less."""
    change = np.zeros(len(plan.statements) + 2, dtype=np.int64)
    for live_range in live_ranges(plan):
        change[live_range.first] += live_range.nbytes
        change[live_range.last + 1] -= live_range.nbytes
    return int(np.cumsum(change).max())


def naive_nbytes(plan: Plan) -> int:
    """Returns the bytes of an allocation that never uses memory again."""
    return sum(live_range.nbytes for live_range in live_ranges(plan))
