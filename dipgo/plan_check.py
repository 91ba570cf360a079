"""The verifier: a plan that passes it can be executed as it stands."""

from __future__ import annotations

from dipgo.graph import TensorType
from dipgo.plan import Call, Callee, Combine, Plan, Read, Statement, reads, value_types, writes


class InvalidPlanError(ValueError):
    """A plan that breaks a rule of the IR; the message names the step and the statement."""


def verify(plan: Plan) -> Plan:
    """Returns the plan unchanged, or raises InvalidPlanError."""
    defined = {value.name for value in plan.inputs}
    callees = {callee.name: callee for callee in plan.callees}
    tables = {table.name: table for table in plan.tables}
    step = 0
    for statement in plan.statements:
        _require(statement.step >= step, statement, "a step that has already ended")
        step = statement.step
        for name in reads(statement):
            _require(name in defined, statement, f"a read of %{name}, which nothing earlier writes")
        for name in writes(statement):
            _require(name not in defined, statement, f"a second definition of %{name}")
            defined.add(name)
        if isinstance(statement, Call):
            _require(statement.callee in callees, statement, "an undeclared callee")
            _check_signature(statement, callees[statement.callee])
    if plan.result not in defined:
        raise InvalidPlanError(f"return: %{plan.result} is never written")
    types = value_types(plan)
    rows = {name: (table.type, set(table.rows)) for name, table in tables.items()}
    for statement in plan.statements:
        _check_types(statement, types, rows, callees)
    if plan.slots:
        _check_slots(plan, types)
    return plan


def _require(condition: bool, statement: Statement, problem: str) -> None:
    if not condition:
        raise InvalidPlanError(f"s{statement.step}, {_describe(statement)}: {problem}")


def _describe(statement: Statement) -> str:
    return statement.callee if isinstance(statement, Call) else f"%{statement.result}"


def _check_signature(call: Call, callee: Callee) -> None:
    arity = (len(call.operands), len(call.results))
    expected = (len(callee.inputs), len(callee.outputs))
    _require(arity == expected, call, f"{arity} operands and results; {expected} declared")


def _check_types(
    statement: Statement,
    types: dict[str, TensorType],
    rows: dict[str, tuple[TensorType, set[int]]],
    callees: dict[str, Callee],
) -> None:
    if isinstance(statement, Combine):
        for _, name in statement.terms:
            _require(
                types[name] == types[statement.result],
                statement,
                f"%{name} is {types[name]}, the result {types[statement.result]}",
            )
        return
    for operand, value in zip(statement.operands, callees[statement.callee].inputs, strict=True):
        expected = value.type
        if isinstance(operand, Read):
            found = types[operand.name]
        else:
            known = operand.table in rows and operand.row in rows[operand.table][1]
            _require(known, statement, f"{operand}, a row that no table holds")
            found = rows[operand.table][0]
        _require(found == expected, statement, f"{operand} is {found}, expected {expected}")


def _check_slots(plan: Plan, types: dict[str, TensorType]) -> None:
    """Walks the plan with the arena in hand: a write may not touch a value still to be read."""
    slots = {slot.value: slot for slot in plan.slots}
    last_read = {plan.result: len(plan.statements)}
    for position, statement in enumerate(plan.statements):
        for name in reads(statement):
            last_read[name] = max(position, last_read.get(name, position))
    live: set[str] = set()
    for position, statement in enumerate(plan.statements):
        live = {name for name in live if last_read.get(name, -1) >= position}
        for name in writes(statement):
            _require(name in slots, statement, f"%{name} has no slot")
            slot = slots[name]
            _require(slot.nbytes >= types[name].nbytes, statement, f"%{name} exceeds its slot")
            for other in live:
                disjoint = (
                    slots[other].offset + slots[other].nbytes <= slot.offset
                    or slot.offset + slot.nbytes <= slots[other].offset
                )
                _require(disjoint, statement, f"%{name} overwrites %{other}, which is still read")
            live.add(name)
