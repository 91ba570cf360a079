"""The plan as text: `print_plan`, whose inverse is `dipgo.plan_parser.parse_plan`.

Deterministic, without ids, paths or times, so that it serves as golden file and diffs well.
`#` begins a comment: counts that follow from the rest are printed as comments and not parsed.
"""

from __future__ import annotations

from collections.abc import Iterator

from dipgo.graph import TensorType, Value
from dipgo.plan import (
    PROLOGUE,
    Call,
    Combine,
    Plan,
    Slot,
    Stack,
    Statement,
    reads,
    value_types,
    writes,
)
from dipgo.plan_cost import evaluations

MIB = 1 << 20


def print_plan(plan: Plan) -> str:
    """The text of a plan; ends without a newline."""
    return "\n".join([*_header(plan), *_declarations(plan), *_body(plan), f"return %{plan.result}"])


def _header(plan: Plan) -> Iterator[str]:
    gates = "".join({step.row: step.gates for step in plan.steps}.values())
    yield f"plan {plan.name} num_inference_steps={plan.num_inference_steps}"
    yield (
        f"# steps={len(plan.steps)} evaluations={evaluations(plan)} "
        f"blocks={len(plan.blocks)} gates={gates.count('1')}/{len(gates)} "
        f"calls={len(plan.calls)} slots={len({(s.offset, s.nbytes) for s in plan.slots})} "
        f"arena={plan.arena_nbytes / MIB:.2f} MiB"
    )


def _declarations(plan: Plan) -> Iterator[str]:
    yield f"blocks {' '.join(plan.blocks)}".rstrip()
    for value in plan.inputs:
        yield f"input %{value.name} {value.type}"
    yield f"state %{plan.state}"
    for draw in plan.draws:
        yield f"draw %{draw.value} index={draw.index}"
    for table in plan.tables:
        yield f"table {table.name} {table.type} rows={','.join(map(str, table.rows))}"
    for callee in plan.callees:
        yield f"callee {callee.name} ({_values(callee.inputs)}) -> ({_values(callee.outputs)})"
        yield (
            f"  macs={callee.macs} attention_macs={callee.attention_macs} "
            f"parameters={callee.parameters}"
        )
        if callee.members:
            yield f"  members {' '.join(callee.members)}"
        if callee.stacked:
            yield f"  stacked {' '.join(callee.stacked)}"


def _values(values: tuple[Value, ...]) -> str:
    return " ".join(f"%{value.name}={value.type}" for value in values)


def _body(plan: Plan) -> Iterator[str]:
    types, slots, lives = value_types(plan), {one.value: one for one in plan.slots}, _lives(plan)
    lines: dict[int, list[str]] = {}
    for statement in plan.statements:
        line = f"  {_statement(statement, slots)}{_comment(statement, types, lives)}"
        lines.setdefault(statement.step, []).append(line)
    if PROLOGUE in lines:
        yield "prologue"
        yield from lines[PROLOGUE]
    for index, step in enumerate(plan.steps):
        yield f"s{index} t={step.timestep!r} row={step.row} {step.gates}".rstrip()
        yield from lines.get(index, [])
    yield "end"
    yield from lines.get(len(plan.steps), [])


def _lives(plan: Plan) -> dict[str, int]:
    """The last step that reads each value."""
    return {name: statement.step for statement in plan.statements for name in reads(statement)}


def _comment(statement: Statement, types: dict[str, TensorType], lives: dict[str, int]) -> str:
    if isinstance(statement, Combine):
        return ""
    kept = [
        f"{types[name]} live to s{lives[name]}"
        for name in statement.results
        if lives.get(name, statement.step) > statement.step
    ]
    return f"  # {'; '.join(kept)}" if kept else ""


def _statement(statement: Statement, slots: dict[str, Slot]) -> str:
    results = _results(statement, slots)
    if isinstance(statement, Combine):
        terms = " + ".join(f"{coefficient!r}*%{name}" for coefficient, name in statement.terms)
        return f"{results} = {terms}"
    return f"{results} = {statement.callee}({' '.join(map(str, statement.operands))})"


def _results(statement: Statement, slots: dict[str, Slot]) -> str:
    """The names that a statement defines, the lanes of an output of a batched call in braces."""
    names = [f"%{name}{_slot(slots[name]) if name in slots else ''}" for name in writes(statement)]
    if isinstance(statement, Combine) or not _is_batched(statement):
        return " ".join(names)
    width = statement.width
    outputs = (names[first : first + width] for first in range(0, len(names), width))
    return " ".join(f"{{{' '.join(lanes)}}}" for lanes in outputs)


def _is_batched(call: Call) -> bool:
    return any(isinstance(operand, Stack) for operand in call.operands)


def _slot(slot: Slot) -> str:
    return f"@{slot.offset}+{slot.nbytes}"
