"""Verifies plans: a plan that passes can be executed as it stands."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from itertools import pairwise

from dipgo.ir.plan.nodes import (
    PROLOGUE,
    Call,
    Callee,
    Combine,
    Leaf,
    Read,
    Slot,
    Stack,
    Statement,
    Table,
    TableRow,
)
from dipgo.ir.plan.plan import Plan, value_types
from dipgo.ir.types import TensorType


class InvalidPlanError(ValueError):
    """A plan that breaks a rule of the IR; the message names the step and the statement."""


def verify(plan: Plan) -> Plan:
    """Returns the plan unchanged if it is valid.

    Raises:
        InvalidPlanError: The plan breaks a rule; the error names the step and the statement.
    """
    callees = {callee.name: callee for callee in plan.callees}
    _check_definitions(plan)
    for call in plan.calls:
        if call.callee not in callees:
            raise _invalid(call, "an undeclared callee")
        _check_signature(call, callees[call.callee])
    types = value_types(plan)
    _check_draws(plan, types)
    tables = {table.name: _Rows.of(table) for table in plan.tables}
    if len(tables) != len(plan.tables):
        raise InvalidPlanError("two tables of one name")
    lanes = _lanes(plan)
    for statement in plan.statements:
        if isinstance(statement, Combine):
            _check_terms(statement, types)
        else:
            _check_operands(statement, callees[statement.callee], types, tables)
            _check_stacks(statement, tables, lanes)
    if plan.slots:
        _check_slots(plan, types)
    return plan


@dataclass(frozen=True, slots=True)
class _Rows:
    """A table's type, and where each of its rows is."""

    type: TensorType
    index: dict[int, int]

    @classmethod
    def of(cls, table: Table) -> _Rows:
        index = {row: place for place, row in enumerate(table.rows)}
        if len(index) != len(table.rows):
            raise InvalidPlanError(f"table {table.name}: a row twice")
        return cls(table.type, index)


def _invalid(statement: Statement, problem: str) -> InvalidPlanError:
    """Returns the error for a statement."""
    return InvalidPlanError(f"{describe(statement)}: {problem}")


def describe(statement: Statement) -> str:
    """Returns step and call as messages name them: `s3, up0`."""
    step = "prologue" if statement.step == PROLOGUE else f"s{statement.step}"
    return f"{step}, {statement.callee if isinstance(statement, Call) else f'%{statement.result}'}"


def _check_definitions(plan: Plan) -> None:
    """Checks that every value is written once and before it is read, and that steps ascend."""
    defined = {value.name for value in plan.inputs}
    if plan.state not in defined:
        raise InvalidPlanError(f"state: %{plan.state} is no input")
    step = PROLOGUE
    for statement in plan.statements:
        if statement.step < step:
            raise _invalid(statement, "a step that has already ended")
        step = statement.step
        for name in statement.reads:
            if name not in defined:
                raise _invalid(statement, f"a read of %{name}, {_where_written(plan, name)}")
        for name in statement.writes:
            if name in defined:
                raise _invalid(statement, f"a second definition of %{name}")
            defined.add(name)
    _check_result(plan)


def _check_draws(plan: Plan, types: dict[str, TensorType]) -> None:
    """Checks that each draw is an input of the state's type, with an index that no other has."""
    seen = {0: plan.state}
    inputs = {value.name for value in plan.inputs}
    for draw in plan.draws:
        where = f"draw %{draw.value}"
        if draw.value not in inputs - set(seen.values()):
            raise InvalidPlanError(f"{where}: no input, or one that is noise already")
        if draw.index < 0 or draw.index in seen:
            raise InvalidPlanError(
                f"{where}: index {draw.index}, expected an index above 0 that no other draw has"
            )
        if types[draw.value] != types[plan.state]:
            raise InvalidPlanError(
                f"{where}: it is {types[draw.value]}, the state {types[plan.state]}"
            )
        seen[draw.index] = draw.value


def _check_result(plan: Plan) -> None:
    """Checks that a statement writes the result, and not into a lane: it has its own memory."""
    writer = next(
        (statement for statement in plan.statements if plan.result in statement.writes), None
    )
    if writer is None:
        raise InvalidPlanError(f"return: %{plan.result} is never written")
    if isinstance(writer, Call) and writer.width > 1:
        raise _invalid(writer, f"%{plan.result}, the result, as one of several lanes")


def _where_written(plan: Plan, name: str) -> str:
    """Says why a value is missing: nothing writes it, a later call does, or there is a cycle."""
    writer = next((statement for statement in plan.statements if name in statement.writes), None)
    if writer is None:
        return "which nothing earlier writes"
    cycle = _cycle(plan, writer)
    if cycle:
        return f"a cycle: {' <- '.join(map(describe, cycle))}"
    return f"which nothing earlier writes, only {describe(writer)}"


def _cycle(plan: Plan, start: Statement) -> list[Statement]:
    """Returns statements, each reading what the next one writes, from `start` back to it."""
    writer = {name: statement for statement in plan.statements for name in statement.writes}
    paths: dict[int, list[Statement]] = {id(start): [start]}
    pending = [start]
    while pending:
        path = paths[id(pending.pop())]
        for source in (writer[name] for name in path[-1].reads if name in writer):
            if source is start:
                return [*path, start]
            if id(source) not in paths:
                paths[id(source)] = [*path, source]
                pending.append(source)
    return []


def _check_signature(call: Call, callee: Callee) -> None:
    width = call.width
    arity = (len(call.operands), len(call.results))
    expected = (len(callee.inputs), len(callee.outputs) * width)
    if arity != expected:
        raise _invalid(call, f"{arity} operands and results; {expected} declared")
    for operand, value in zip(call.operands, callee.inputs, strict=True):
        stacked = value.name in callee.stacked
        if isinstance(operand, Stack):
            if not stacked:
                raise _invalid(call, f"a stack for %{value.name}, not stacked")
            if len(operand.lanes) != width:
                raise _invalid(call, "stacks of different widths")
        elif stacked:
            raise _invalid(call, f"no stack for %{value.name}")


def _check_terms(combine: Combine, types: dict[str, TensorType]) -> None:
    for _, name in combine.terms:
        if types[name] != types[combine.result]:
            problem = f"%{name} is {types[name]}, the result {types[combine.result]}"
            raise _invalid(combine, problem)


def _check_operands(
    call: Call, callee: Callee, types: dict[str, TensorType], tables: dict[str, _Rows]
) -> None:
    for operand, value in zip(call.operands, callee.inputs, strict=True):
        for leaf in operand.lanes if isinstance(operand, Stack) else (operand,):
            if isinstance(leaf, Read):
                leaf_type = types[leaf.name]
            else:
                if leaf.table not in tables or leaf.row not in tables[leaf.table].index:
                    raise _invalid(call, f"{leaf}, a row that no table holds")
                leaf_type = tables[leaf.table].type
            if leaf_type != value.type:
                raise _invalid(call, f"{leaf} is {leaf_type}, expected {value.type}")


Lane = tuple[int, int, int]
"""The statement that writes a value, the output that the value is, and its lane; all by number."""


def _lanes(plan: Plan) -> dict[str, Lane]:
    return {
        name: (position, output, lane)
        for position, statement in enumerate(plan.statements)
        if isinstance(statement, Call)
        for output, names in enumerate(statement.outputs)
        for lane, name in enumerate(names)
    }


def _check_stacks(call: Call, tables: dict[str, _Rows], lanes: dict[str, Lane]) -> None:
    """Checks that the lanes of a stack lie side by side."""
    for stack in (operand for operand in call.operands if isinstance(operand, Stack)):
        for first, second in pairwise(stack.lanes):
            if not _adjacent(first, second, tables, lanes):
                problem = f"{first} and {second}, which do not lie side by side, in a stack"
                raise _invalid(call, problem)


def _adjacent(first: Leaf, second: Leaf, tables: dict[str, _Rows], lanes: dict[str, Lane]) -> bool:
    if isinstance(first, TableRow) and isinstance(second, TableRow):
        index = tables[first.table].index
        return first.table == second.table and index[first.row] + 1 == index[second.row]
    if isinstance(first, Read) and isinstance(second, Read):
        position, output, lane = lanes.get(first.name, (-1, -1, -1))
        return lanes.get(second.name) == (position, output, lane + 1)
    return False


def _check_slots(plan: Plan, types: dict[str, TensorType]) -> None:
    """Checks that no write touches a value that is still to be read, statement by statement."""
    slots = {slot.value: slot for slot in plan.slots}
    written = {name for statement in plan.statements for name in statement.writes}
    for slot in plan.slots:
        if slot.value not in written:
            raise InvalidPlanError(f"slot of %{slot.value}: no statement writes it")
    last_read = {plan.result: len(plan.statements)}
    for position, statement in enumerate(plan.statements):
        for name in statement.reads:
            last_read[name] = max(position, last_read.get(name, position))
    live: list[tuple[int, int, str]] = []
    expiring: dict[int, list[Slot]] = {}
    for position, statement in enumerate(plan.statements):
        for slot in expiring.pop(position - 1, []):
            del live[bisect(live, (slot.offset, slot.offset + slot.nbytes, slot.value)) - 1]
        for name in statement.writes:
            if name not in slots:
                raise _invalid(statement, f"%{name} has no slot")
            slot = slots[name]
            if slot.nbytes < types[name].nbytes:
                raise _invalid(statement, f"%{name} exceeds its slot")
            _check_is_free(slot, live, statement)
            expiring.setdefault(last_read.get(name, position), []).append(slot)
        if isinstance(statement, Call):
            _check_lanes_are_adjacent(statement, slots)


def _check_is_free(slot: Slot, live: list[tuple[int, int, str]], statement: Statement) -> None:
    """Adds the slot to the live ones, which are sorted and disjoint, so that neighbours suffice."""
    entry = (slot.offset, slot.offset + slot.nbytes, slot.value)
    index = bisect(live, entry)
    for start, end, other in live[max(index - 1, 0) : index + 1]:
        if start < entry[1] and entry[0] < end:
            raise _invalid(statement, f"%{slot.value} overwrites %{other}, which is still read")
    live.insert(index, entry)


def _check_lanes_are_adjacent(call: Call, slots: dict[str, Slot]) -> None:
    for names in call.outputs:
        for first, second in pairwise(names):
            if slots[first].offset + slots[first].nbytes != slots[second].offset:
                problem = f"%{first} and %{second}, lanes of one output"
                raise _invalid(call, f"{problem}, in slots that are not side by side")
