"""Segments: nodes that run together whenever they run become one callee. docs/design.md, stage 7.

A segment is convex: nothing outside it lies on a way from one member to another, so that all of
its inputs are ready before it starts. Each node, hence each weight, is in exactly one segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dipgo.plan import Call, Callee, Operand, Plan, Read, Statement, reads, writes


def form_segments(plan: Plan) -> Plan:
    """Groups callees by the steps in which they are called and rewrites the calls."""
    calls = _calls_by_callee(plan)
    called = [callee for callee in plan.callees if callee.name in calls]
    groups = _group(called, calls)
    segments = [
        _Segment.of(f"seg{index}", [calls[name] for name in names], plan)
        for index, names in enumerate(groups)
    ]
    callees = {callee.name: callee for callee in plan.callees}
    return replace(
        plan,
        callees=tuple(segment.callee(callees) for segment in segments),
        statements=_schedule(plan, segments),
    )


def _calls_by_callee(plan: Plan) -> dict[str, dict[int, Call]]:
    """For every callee its calls by step."""
    calls: dict[str, dict[int, Call]] = {}
    for call in plan.calls:
        by_step = calls.setdefault(call.callee, {})
        assert call.step not in by_step, f"{call.callee} is called twice at s{call.step}"
        by_step[call.step] = call
    return calls


def _group(called: list[Callee], calls: dict[str, dict[int, Call]]) -> list[list[str]]:
    """Callees (in topological order) in groups of equal steps whose quotient graph is acyclic."""
    sources, renamed = _sources_within_steps(called, calls)
    groups: list[list[str]] = []
    group_of: dict[str, int] = {}
    ancestors: list[set[int]] = []
    for callee in called:
        parents = {group_of[source] for source in sources[callee.name]}
        apart = {group_of[source] for source in renamed[callee.name]}
        steps = calls[callee.name].keys()
        home = next(
            (
                index
                for index in reversed(range(len(groups)))
                if calls[groups[index][0]].keys() == steps
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
    called: list[Callee], calls: dict[str, dict[int, Call]]
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """For every callee those that it reads from within a step; caches impose no order.

    Then those of them whose value it knows by another name: a block whose backup is `identity`
    passes on its input, which is then not an edge of the graph that a segment is cut from.
    """
    writer = {
        (step, result): (callee.name, value.name)
        for callee in called
        for step, call in calls[callee.name].items()
        for result, value in zip(call.results, callee.outputs, strict=True)
    }
    sources: dict[str, set[str]] = {callee.name: set() for callee in called}
    renamed: dict[str, set[str]] = {callee.name: set() for callee in called}
    for callee in called:
        for step, call in calls[callee.name].items():
            for operand, value in zip(call.operands, callee.inputs, strict=True):
                if isinstance(operand, Read) and (step, operand.name) in writer:
                    source, name = writer[step, operand.name]
                    sources[callee.name].add(source)
                    if name != value.name:
                        renamed[callee.name].add(source)
    return sources, renamed


@dataclass(frozen=True, slots=True)
class _Segment:
    """Members with their calls by step, and the operands and results that cross the boundary."""

    name: str
    members: tuple[str, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    calls: tuple[Call, ...]

    @classmethod
    def of(cls, name: str, members: list[dict[int, Call]], plan: Plan) -> _Segment:
        """`members` holds, for every member in topological order, its calls by step."""
        steps = list(members[0])
        callees = {callee.name: callee for callee in plan.callees}
        inputs = _external_inputs(members, steps, callees)
        outputs = _external_outputs(members, steps, plan)
        first = [by_step[steps[0]].callee for by_step in members]
        by_name = dict(zip(first, members, strict=True))
        calls = tuple(
            Call(
                step,
                name,
                tuple(by_name[member][step].operands[index] for member, index in inputs),
                tuple(by_name[member][step].results[index] for member, index in outputs),
            )
            for step in steps
        )
        return cls(name, tuple(first), inputs, outputs, calls)

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
    members: list[dict[int, Call]], steps: list[int], callees: dict[str, Callee]
) -> tuple[tuple[str, int], ...]:
    """One (member, operand index) for every value of the graph that no member computes."""
    own = {step: _results(members, step) for step in steps}
    seen: dict[tuple[str, tuple[Operand, ...]], tuple[str, int]] = {}
    for by_step in members:
        calls = [by_step[step] for step in steps]
        for index, operands in enumerate(zip(*(call.operands for call in calls), strict=True)):
            internal = {
                isinstance(operand, Read) and operand.name in own[step]
                for step, operand in zip(steps, operands, strict=True)
            }
            assert len(internal) == 1, f"{calls[0].callee}: an operand both inside and outside"
            if internal == {False}:
                name = callees[calls[0].callee].inputs[index].name
                seen.setdefault((name, operands), (calls[0].callee, index))
    return tuple(seen.values())


def _external_outputs(
    members: list[dict[int, Call]], steps: list[int], plan: Plan
) -> tuple[tuple[str, int], ...]:
    """Every (member, result index) that anything but the same call of the segment reads."""
    names = {by_step[steps[0]].callee for by_step in members}
    needed = {plan.result}
    for statement in plan.statements:
        inside = isinstance(statement, Call) and statement.callee in names
        own = _results(members, statement.step) if inside else set()
        needed.update(set(reads(statement)) - own)
    return tuple(
        (by_step[steps[0]].callee, index)
        for by_step in members
        for index in range(len(by_step[steps[0]].results))
        if any(by_step[step].results[index] in needed for step in steps)
    )


def _results(members: list[dict[int, Call]], step: int) -> set[str]:
    """All that the segment's call at `step` computes."""
    return {result for by_step in members for result in by_step[step].results}


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
            ready = next(one for one in waiting if defined.issuperset(reads(one)))
            waiting.remove(ready)
            defined.update(writes(ready))
            ordered.append(ready)
    return tuple(ordered)
