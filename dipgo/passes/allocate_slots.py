"""Liveness and slot allocation: every value gets bytes of one arena, reused when it is dead.

Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
2020, section 5.2): the largest value first, each at the lowest offset that is free while it lives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dipgo.plan import Plan, Slot, reads, value_types, writes

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
    ranges = sorted(live_ranges(plan), key=lambda one: (-one.nbytes, one.first, one.value))
    first, last, start, end = np.zeros((4, len(ranges)), dtype=np.int64)
    for count, one in enumerate(ranges):
        together = (first[:count] <= one.last) & (last[:count] >= one.first)
        size = -(-one.nbytes // ALIGNMENT) * ALIGNMENT
        start[count] = _lowest_gap(start[:count][together], end[:count][together], size)
        first[count], last[count], end[count] = one.first, one.last, start[count] + size
    offsets = {one.value: int(offset) for one, offset in zip(ranges, start, strict=True)}
    slots = (Slot(one.value, offsets[one.value], one.nbytes) for one in live_ranges(plan))
    return replace(plan, slots=tuple(slots))


def _lowest_gap(starts: np.ndarray, ends: np.ndarray, size: int) -> int:
    """The lowest offset at which `size` bytes lie clear of all [start, end)."""
    order = np.argsort(starts, kind="stable")
    clear_from = np.concatenate(([0], np.maximum.accumulate(ends[order])))
    room = np.append(starts[order], np.iinfo(np.int64).max) - clear_from
    return int(clear_from[np.argmax(room >= size)])


def lower_bound_nbytes(plan: Plan) -> int:
    """The largest sum of bytes that live at one statement: no allocation can use less."""
    change = np.zeros(len(plan.statements) + 2, dtype=np.int64)
    for one in live_ranges(plan):
        change[one.first] += one.nbytes
        change[one.last + 1] -= one.nbytes
    return int(np.cumsum(change).max())
