"""Segments: nodes that run together whenever they run become one callee.

docs/internals/design.md, stage 7.

A segment is convex: no path from one member to another leads through a node outside it, so that all
of its inputs are ready before it starts. Each node, hence each weight, is in exactly one segment. A
callee's first call goes with the first calls of its fellow members, and so on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import TypeAlias

from dipgo.ir.plan.nodes import Call, Callee, Operand, Read, Statement
from dipgo.ir.plan.plan import Plan

_Readers: TypeAlias = Mapping[str, Set[int | None]]


def form_segments(plan: Plan) -> Plan:
    """Groups callees by the steps in which they are called, and rewrites the calls."""
    calls: dict[str, list[Call]] = {}
    for call in plan.calls:
        calls.setdefault(call.callee, []).append(call)
    called = [callee for callee in plan.callees if callee.name in calls]
    groups = _group(called, calls)
    callees, readers = {callee.name: callee for callee in plan.callees}, _readers(plan)
    segments = [
        _Segment.of(f"seg{index}", [calls[name] for name in names], callees, readers)
        for index, names in enumerate(groups)
    ]
    return replace(
        plan,
        callees=tuple(segment.callee(callees) for segment in segments),
        statements=_schedule(plan, segments),
    )


def _steps(calls: list[Call]) -> tuple[int, ...]:
    """Returns the step of each call; the prologue may have several."""
    return tuple(call.step for call in calls)


def _group(called: list[Callee], calls: dict[str, list[Call]]) -> list[list[str]]:
    """Groups callees of equal steps such that the graph of the groups has no cycle.

    The callees come in topological order.
    """
    sources, foreign = _sources_within_steps(called, calls)
    groups: list[list[str]] = []
    group_of: dict[str, int] = {}
    ancestors: list[set[int]] = []
    for callee in called:
        parents = {group_of[source] for source in sources[callee.name]}
        apart = {group_of[source] for source in foreign[callee.name]}
        steps = _steps(calls[callee.name])
        home = next(
            (
                index
                for index in reversed(range(len(groups)))
                if _steps(calls[groups[index][0]]) == steps
                and index not in apart
                and not any(index in ancestors[parent] for parent in parents - {index})
            ),
            None,
        )
        if home is None:
            home = len(groups)
            groups.append([])
            ancestors.append(set())
        groups[home].append(callee.name)
        group_of[callee.name] = home
        _add_ancestors(ancestors, home, parents - {home})
    return groups


def _add_ancestors(ancestors: list[set[int]], home: int, parents: set[int]) -> None:
    """Records that `home`, and all that follows it, comes after `parents`."""
    before = parents.union(*(ancestors[parent] for parent in parents))
    for index, known in enumerate(ancestors):
        if index == home or home in known:
            known |= before


def _sources_within_steps(
    called: list[Callee], calls: dict[str, list[Call]]
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Returns, for every callee, its sources within a step, and which of these are foreign.

    A source is a callee that it reads from; caches impose no order, so reads from earlier steps do
    not count. A foreign source cannot share a segment with the callee: the callee knows its value
    by another name (a block whose backup is `identity` passes on its input, which is then no edge
    of the graph that a segment is cut from), or reads the value of another call of the source.
    """
    writer = {
        result: (callee.name, value.name, index, call.step)
        for callee in called
        for index, call in enumerate(calls[callee.name])
        for result, value in zip(call.results, callee.outputs, strict=True)
    }
    sources: dict[str, set[str]] = {callee.name: set() for callee in called}
    foreign: dict[str, set[str]] = {callee.name: set() for callee in called}
    for callee in called:
        for index, call in enumerate(calls[callee.name]):
            for operand, value in zip(call.operands, callee.inputs, strict=True):
                if not isinstance(operand, Read) or operand.name not in writer:
                    continue
                source, name, occurrence, step = writer[operand.name]
                if step == call.step:
                    sources[callee.name].add(source)
                    if (name, occurrence) != (value.name, index):
                        foreign[callee.name].add(source)
    return sources, foreign


@dataclass(frozen=True, slots=True)
class _Segment:
    """Members with their calls by step, and the operands and results that cross the boundary."""

    name: str
    members: tuple[str, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    calls: tuple[Call, ...]

    @classmethod
    def of(
        cls, name: str, members: list[list[Call]], callees: dict[str, Callee], readers: _Readers
    ) -> _Segment:
        """Makes a segment of `members`: for every member, in topological order, its calls."""
        names = tuple(calls[0].callee for calls in members)
        inputs, outputs = _external_inputs(members, callees), _external_outputs(members, readers)
        calls = []
        for together in zip(*members, strict=True):
            call_of = dict(zip(names, together, strict=True))
            operands = tuple(call_of[member].operands[index] for member, index in inputs)
            results = tuple(call_of[member].results[index] for member, index in outputs)
            calls.append(Call(together[0].step, name, operands, results))
        return cls(name, names, inputs, outputs, tuple(calls))

    def callee(self, callees: dict[str, Callee]) -> Callee:
        members = [callees[name] for name in self.members]
        return Callee(
            name=self.name,
            members=self.members,
            inputs=tuple(callees[name].inputs[index] for name, index in self.inputs),
            outputs=tuple(callees[name].outputs[index] for name, index in self.outputs),
            macs=sum(member.macs for member in members),
            attention_macs=sum(member.attention_macs for member in members),
            parameters=sum(member.parameters for member in members),
        )


def _external_inputs(
    members: list[list[Call]], callees: dict[str, Callee]
) -> tuple[tuple[str, int], ...]:
    """Returns one (member, operand index) for each value of the graph that no member computes."""
    own = _results(members)
    seen: dict[tuple[str, tuple[Operand, ...]], tuple[str, int]] = {}
    for calls in members:
        callee = callees[calls[0].callee]
        for index, operands in enumerate(zip(*(call.operands for call in calls), strict=True)):
            internal = {
                isinstance(operand, Read) and operand.name in results
                for results, operand in zip(own, operands, strict=True)
            }
            assert len(internal) == 1, f"{callee.name}: an operand both inside and outside"
            if internal == {False}:
                name = callee.inputs[index].name
                seen.setdefault((name, operands), (callee.name, index))
    return tuple(seen.values())


def _external_outputs(members: list[list[Call]], readers: _Readers) -> tuple[tuple[str, int], ...]:
    """Returns each (member, result index) that is read outside the same call of the segment."""
    inside = [set(map(id, together)) for together in zip(*members, strict=True)]
    return tuple(
        (calls[0].callee, index)
        for calls in members
        for index in range(len(calls[0].results))
        if any(
            not readers[call.results[index]] <= together
            for call, together in zip(calls, inside, strict=True)
        )
    )


def _readers(plan: Plan) -> _Readers:
    """Returns the identities of the statements that read each value; None reads the result."""
    readers: dict[str, set[int | None]] = defaultdict(set)
    for statement in plan.statements:
        for name in statement.reads:
            readers[name].add(id(statement))
    readers[plan.result].add(None)
    return readers


def _results(members: list[list[Call]]) -> list[set[str]]:
    """Returns, for each call of the segment, all values that it computes."""
    return [
        {result for call in together for result in call.results}
        for together in zip(*members, strict=True)
    ]


def _schedule(plan: Plan, segments: Iterable[_Segment]) -> tuple[Statement, ...]:
    """Orders the statements of each step so that every read follows its write."""
    pending: dict[int, list[Statement]] = {}
    for statement in plan.statements:
        if not isinstance(statement, Call):
            pending.setdefault(statement.step, []).append(statement)
    for segment in segments:
        for call in segment.calls:
            pending.setdefault(call.step, []).append(call)
    defined = {value.name for value in plan.inputs}
    ordered: list[Statement] = []
    for step in sorted(pending):
        waiting = pending[step]
        while waiting:
            ready = next(statement for statement in waiting if defined.issuperset(statement.reads))
            waiting.remove(ready)
            defined.update(ready.writes)
            ordered.append(ready)
    return tuple(ordered)
