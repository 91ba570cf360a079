"""The plan: an SSA program over all steps, with every cache read and write explicit.

    plan       = steps, inputs, tables, callees, statements, result, slots
    statement  = call | combine
    call       : results = callee(operands)       one execution of a block, glue or segment
    combine    : result  = sum of coefficient * value     the sampler's arithmetic
    operand    = leaf | {leaf …}                  a stack has one entry for each lane of a call
    leaf       = %value | table[row]              a row of a table is known when exporting

Statements of the step PROLOGUE come first and run once per prompt. A call of a callee with
`stacked` inputs executes several independent calls at once, each in its lane: such an input is a
stack, the other operands are shared by all lanes, and every output has a result for each lane. The
lanes of a stack, like those of an output, lie side by side in memory.

A value keeps its name for as long as anything reads it: caching is naming. A slot is the
range of bytes of the arena in which a value lives from the statement that writes it to the
last that reads it. This module prints plans, `dipgo.ir.plan.parse` reads them, and
`dipgo.ir.plan.verify` verifies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dipgo.ir.plan.nodes import (
    PROLOGUE,
    Call,
    Callee,
    Combine,
    Draw,
    Slot,
    Stack,
    Statement,
    Step,
    Table,
)
from dipgo.ir.types import TensorType, Value

MIB = 1 << 20


def print_plan(plan: Plan) -> str:
    """Returns the text of a plan, without a newline at its end."""
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
    types, slots, lives = value_types(plan), {slot.value: slot for slot in plan.slots}, _lives(plan)
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
    """Returns the last step that reads each value."""
    return {name: statement.step for statement in plan.statements for name in statement.reads}


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
    """Formats the names that a statement defines, with the lanes of a batched output in braces."""
    names = [f"%{name}{_slot(slots[name]) if name in slots else ''}" for name in statement.writes]
    if isinstance(statement, Combine) or not _is_batched(statement):
        return " ".join(names)
    width = statement.width
    outputs = (names[first : first + width] for first in range(0, len(names), width))
    return " ".join(f"{{{' '.join(lanes)}}}" for lanes in outputs)


def _is_batched(call: Call) -> bool:
    return any(isinstance(operand, Stack) for operand in call.operands)


def _slot(slot: Slot) -> str:
    return f"@{slot.offset}+{slot.nbytes}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A static execution of all steps. `slots` is empty until `allocate_slots` has run.

    `state` names the input that is the initial noise, `draws` the inputs that are later noise; the
    other inputs belong to the prompt.
    """

    name: str
    num_inference_steps: int
    blocks: tuple[str, ...]
    steps: tuple[Step, ...]
    inputs: tuple[Value, ...]
    state: str
    tables: tuple[Table, ...]
    callees: tuple[Callee, ...]
    statements: tuple[Statement, ...]
    result: str
    slots: tuple[Slot, ...] = ()
    draws: tuple[Draw, ...] = ()

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls, in order of execution."""
        return tuple(statement for statement in self.statements if isinstance(statement, Call))

    @property
    def arena_nbytes(self) -> int:
        """The bytes of memory that hold every value of the plan."""
        return max((slot.offset + slot.nbytes for slot in self.slots), default=0)

    def __str__(self) -> str:
        return print_plan(self)


def value_types(plan: Plan) -> dict[str, TensorType]:
    """Returns the type of every value of the plan.

    A combination has the type of its first term.
    """
    types = {value.name: value.type for value in plan.inputs}
    callees = {callee.name: callee for callee in plan.callees}
    for statement in plan.statements:
        if isinstance(statement, Combine):
            types[statement.result] = types[statement.terms[0][1]]
        else:
            for value, names in zip(
                callees[statement.callee].outputs, statement.outputs, strict=True
            ):
                types.update(dict.fromkeys(names, value.type))
    return types


def combined_dtypes(plan: Plan) -> tuple[str, ...]:
    """Returns the element types of the plan's linear combinations, sorted."""
    types = value_types(plan)
    combined = (statement.result for statement in plan.statements if isinstance(statement, Combine))
    return tuple(sorted({types[name].dtype for name in combined}))


def calls_by_step(plan: Plan) -> dict[int, list[Call]]:
    """Groups the calls by the step that executes them; fully reused steps are absent.

    Calls of the prologue, which belong to no step, are left out.
    """
    grouped: dict[int, list[Call]] = {}
    for call in plan.calls:
        if call.step != PROLOGUE:
            grouped.setdefault(call.step, []).append(call)
    return grouped


def evaluations(plan: Plan) -> int:
    """Counts the steps whose prediction is computed.

    A callee that all of these steps need has a lane for each of them, so the largest number of
    lanes of any callee is the answer.
    """
    lanes: Counter[str] = Counter()
    for calls in calls_by_step(plan).values():
        for call in calls:
            lanes[call.callee] += call.width
    return max(lanes.values(), default=0)
