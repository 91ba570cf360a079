"""The plan: an SSA program over all steps, with every cache read and write explicit.

    plan       = steps, inputs, tables, callees, statements, result, slots
    statement  = call | combine
    call       : results = callee(operands)       one execution of a block, glue or segment
    combine    : result  = sum of coefficient * value     the sampler's arithmetic
    operand    = leaf | {leaf …}                  a stack has one entry for each lane of a call
    leaf       = %value | table[row]              a row of a table is known when exporting

Statements of the step PROLOGUE come first and run once per prompt. A call of a callee with
`stacked` inputs computes several independent calls at once, one a lane: such an input is a stack,
the other operands are shared by all lanes, and every output is a result for each lane. The lanes
of a stack, like those of an output, lie side by side in memory.

A value keeps its name for as long as anything reads it: caching is naming. A slot is the
range of bytes of the arena in which a value lives from the statement that writes it to the
last that reads it. `dipgo.plan_text` prints plans, `dipgo.plan_parser` reads them,
`dipgo.plan_check` verifies them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dipgo.graph import TensorType, Value


@dataclass(frozen=True, slots=True)
class Read:
    """An operand: a value computed earlier, or a plan input."""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """An operand: one row of a table that was filled at export; `row` counts timesteps."""

    table: str
    row: int

    def __str__(self) -> str:
        return f"{self.table}[{self.row}]"


Leaf: TypeAlias = Read | TableRow


@dataclass(frozen=True, slots=True)
class Stack:
    """An operand with one entry for each lane of the call, side by side in memory."""

    lanes: tuple[Leaf, ...]

    def __str__(self) -> str:
        return f"{{{' '.join(map(str, self.lanes))}}}"


Operand: TypeAlias = Leaf | Stack

PROLOGUE = -1
"""The step of statements that run once per prompt, before s0."""


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation: the scheduler's timestep, its row in the SubNet, the row's gates."""

    timestep: float
    row: int
    gates: str


@dataclass(frozen=True, slots=True)
class Table:
    """A constant per timestep; `rows` lists the timesteps (rows of the SubNet) that are stored."""

    name: str
    type: TensorType
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Callee:
    """What a call runs: a node of the BlockGraph, or a segment of several (`members`).

    Inputs and outputs carry the names that their values have in the BlockGraph, and the types of
    one lane. `stacked` names the inputs that have an entry for each lane; none where calls are
    not batched. Costs are those of one lane.
    """

    name: str
    members: tuple[str, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    macs: int
    attention_macs: int
    parameters: int
    stacked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of a callee at step `step`, or at PROLOGUE.

    `results` has the lanes of the first output, then those of the second, and so on.
    """

    step: int
    callee: str
    operands: tuple[Operand, ...]
    results: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of lanes."""
        stacks = (operand for operand in self.operands if isinstance(operand, Stack))
        return next((len(stack.lanes) for stack in stacks), 1)

    @property
    def outputs(self) -> tuple[tuple[str, ...], ...]:
        """For each output of the callee its results, one a lane."""
        width = self.width
        return tuple(
            self.results[first : first + width] for first in range(0, len(self.results), width)
        )

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The operands, those of stacks one by one."""
        return tuple(leaf for operand in self.operands for leaf in leaves(operand))


@dataclass(frozen=True, slots=True)
class Combine:
    """A linear combination: result = sum of coefficient * value, in the given order."""

    step: int
    result: str
    terms: tuple[tuple[float, str], ...]


Statement: TypeAlias = Call | Combine


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes [offset, offset + nbytes) of the arena, holding `value` while it is live."""

    value: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Draw:
    """An input that is noise of unit variance, drawn on the way: draw `index` of a seed.

    Draw 0 is the initial noise. A scheduler may draw more than is used.
    """

    value: str
    index: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A static execution of all steps. `slots` is empty until `allocate_slots` has run.

    `state` names the input that is the initial noise, `draws` those that are later noise; the
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
        """Bytes of memory that hold every value of the plan."""
        return max((slot.offset + slot.nbytes for slot in self.slots), default=0)

    def __str__(self) -> str:
        from dipgo.plan_text import print_plan

        return print_plan(self)


def leaves(operand: Operand) -> tuple[Leaf, ...]:
    """The lanes of a stack, or the operand itself."""
    return operand.lanes if isinstance(operand, Stack) else (operand,)


def map_leaves(operand: Operand, change: Callable[[Leaf], Leaf]) -> Operand:
    """The operand with `change` applied to it, or to each lane of a stack."""
    if isinstance(operand, Stack):
        return Stack(tuple(map(change, operand.lanes)))
    return change(operand)


def reads(statement: Statement) -> tuple[str, ...]:
    """Names of the values that a statement reads, repeated as often as it reads them."""
    if isinstance(statement, Combine):
        return tuple(name for _, name in statement.terms)
    return tuple(leaf.name for leaf in statement.leaves if isinstance(leaf, Read))


def writes(statement: Statement) -> tuple[str, ...]:
    """Names of the values that a statement defines."""
    return (statement.result,) if isinstance(statement, Combine) else statement.results


def value_types(plan: Plan) -> dict[str, TensorType]:
    """The type of every value of the plan; a combination has the type of its first term."""
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
    """The element types of which the plan has linear combinations, sorted."""
    types = value_types(plan)
    combined = (one.result for one in plan.statements if isinstance(one, Combine))
    return tuple(sorted({types[name].dtype for name in combined}))


def calls_by_step(plan: Plan) -> dict[int, list[Call]]:
    """Calls grouped by the step that executes them; fully reused steps are absent.

    Those of the prologue, which belong to no step, are left out.
    """
    grouped: dict[int, list[Call]] = {}
    for call in plan.calls:
        if call.step != PROLOGUE:
            grouped.setdefault(call.step, []).append(call)
    return grouped
