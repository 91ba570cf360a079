"""Horizontal batching: calls of one callee that need no newer state become one call.

Such calls differ only in operands that were known all along: rows of tables, or lanes of an earlier
batch. They run as the lanes of one call, at the place of the first; their shared operands are
computed once. This joins the decoders of Faster Diffusion's non-key steps (arXiv 2312.09608,
parallel decoding), and all that depends on prompt and timestep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from dipgo.ir.plan.nodes import (
    Call,
    Callee,
    Leaf,
    Operand,
    Read,
    Stack,
    Statement,
    TableRow,
    leaves,
)
from dipgo.ir.plan.plan import Plan

CanBatch: TypeAlias = Callable[[Callee, frozenset[str]], bool]
"""Returns whether calls of a callee can be lanes of one call that differ in these inputs."""


def batch_calls(plan: Plan, can_batch: CanBatch = lambda callee, differing: True) -> Plan:
    """Merges calls of one callee whose operands are all available when the first of them runs.

    Args:
        plan: The plan.
        can_batch: What is not batched stays a call each, and computes the same.
    """
    batching = _Batching(plan, can_batch)
    for position, statement in enumerate(plan.statements):
        batching.add(position, statement)
    return batching.finish()


@dataclass
class _Batch:
    """A group of calls of one callee, to run as the lanes of one call at `position`."""

    position: int
    calls: list[Call]


@dataclass
class _Batching:
    """The state of the pass after the statements so far."""

    plan: Plan
    can_batch: CanBatch
    statements: dict[int, Statement | _Batch] = field(default_factory=dict)
    batches: dict[str, list[_Batch]] = field(default_factory=dict)
    differing: dict[str, frozenset[int]] = field(default_factory=dict)
    """For each callee that is batched, the operands in which its lanes differ."""
    ready: dict[str, int] = field(default_factory=dict)
    """The position from which on each value is available."""
    lanes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """For each value, the position of its batch, its output, and its lane."""

    def __post_init__(self) -> None:
        self.rows = {table.name: table.rows for table in self.plan.tables}
        self.callees = {callee.name: callee for callee in self.plan.callees}

    def add(self, position: int, statement: Statement) -> None:
        """Joins a call to an earlier batch, or leaves the statement in its place."""
        if isinstance(statement, Call):
            batch = self._batch_for(statement) or self._new_batch(position, statement)
            batch.calls.append(statement)
            position, lane = batch.position, len(batch.calls) - 1
            for output, name in enumerate(statement.results):
                self.lanes[name] = (position, output, lane)
        else:
            self.statements[position] = statement
        self.ready.update(dict.fromkeys(statement.writes, position))

    def _new_batch(self, position: int, call: Call) -> _Batch:
        batch = _Batch(position, [])
        self.statements[position] = batch
        if self.plan.result not in call.results:  # the result has its own memory, so it is no lane
            self.batches.setdefault(call.callee, []).append(batch)
        return batch

    def _batch_for(self, call: Call) -> _Batch | None:
        """Returns the latest batch that the call fits and that runs after the call's operands."""
        if self.plan.result in call.results:
            return None
        needed = max((self.ready.get(name, -1) for name in call.reads), default=-1)
        for batch in reversed(self.batches.get(call.callee, [])):
            if batch.position <= needed:
                return None
            differing = self._difference(batch.calls[-1], call)
            if differing and self._can_differ(call.callee, differing):
                return batch
        return None

    def _can_differ(self, name: str, differing: frozenset[int]) -> bool:
        """Returns whether lanes may differ so; all batches of a callee differ in the same."""
        if name not in self.differing:
            callee = self.callees[name]
            inputs = frozenset(callee.inputs[index].name for index in differing)
            if not self.can_batch(callee, inputs):
                return False
            self.differing[name] = differing
        return self.differing[name] == differing

    def _difference(self, last: Call, call: Call) -> frozenset[int]:
        """Returns the operands in which the calls differ, or none if they cannot be neighbours."""
        pairs = list(zip(last.operands, call.operands, strict=True))
        differing = frozenset(index for index, (left, right) in enumerate(pairs) if left != right)
        fit = all(self._side_by_side(*pairs[index]) for index in differing)
        return differing if fit else frozenset()

    def _side_by_side(self, left: Operand, right: Operand) -> bool:
        if isinstance(left, TableRow) and isinstance(right, TableRow) and left.table == right.table:
            rows = self.rows[left.table]
            return rows.index(left.row) + 1 == rows.index(right.row)
        if isinstance(left, Read) and isinstance(right, Read) and left.name in self.lanes:
            position, output, lane = self.lanes[left.name]
            return self.lanes.get(right.name) == (position, output, lane + 1)
        return False

    def finish(self) -> Plan:
        """Returns the plan with a call for each batch."""
        return replace(
            self.plan,
            callees=tuple(map(self._callee, self.plan.callees)),
            statements=tuple(map(self._statement, self.statements.values())),
        )

    def _callee(self, callee: Callee) -> Callee:
        differing = sorted(self.differing.get(callee.name, ()))
        return replace(callee, stacked=tuple(callee.inputs[index].name for index in differing))

    def _statement(self, entry: Statement | _Batch) -> Statement:
        if not isinstance(entry, _Batch):
            return entry
        first = entry.calls[0]
        differing = self.differing.get(first.callee, frozenset())
        operands = tuple(
            Stack(_lanes_of(entry.calls, index)) if index in differing else operand
            for index, operand in enumerate(first.operands)
        )
        lanes = zip(*(call.results for call in entry.calls), strict=True)
        results = tuple(name for output in lanes for name in output)
        return replace(first, operands=operands, results=results)


def _lanes_of(calls: list[Call], index: int) -> tuple[Leaf, ...]:
    return tuple(leaf for call in calls for leaf in leaves(call.operands[index]))
