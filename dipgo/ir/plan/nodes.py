"""The parts of a plan: operands, statements, callees, tables, slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dipgo.ir.types import TensorType, Value

Terms = tuple[tuple[float, str], ...]


def merge_terms(terms: Terms) -> Terms:
    """Adds the coefficients of equal values, in order of first appearance (float64)."""
    merged: dict[str, float] = {}
    for coefficient, name in terms:
        merged[name] = merged.get(name, 0.0) + coefficient
    return tuple((coefficient, name) for name, coefficient in merged.items())


def substitute(combine: Combine, definitions: dict[str, Terms]) -> Terms:
    """Returns the terms of `combine` with each defined name replaced by its definition."""
    expanded: list[tuple[float, str]] = []
    for coefficient, name in combine.terms:
        inner = definitions.get(name, ((1.0, name),))
        expanded.extend((coefficient * factor, source) for factor, source in inner)
    return merge_terms(tuple(expanded))


@dataclass(frozen=True, slots=True)
class Read:
    """A value computed earlier, or a plan input, as an operand."""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table that was filled at export, as an operand; `row` counts timesteps."""

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
    """An evaluation: the scheduler's timestep, its row in the SubNet, and the row's gates."""

    timestep: float
    row: int
    gates: str


@dataclass(frozen=True, slots=True)
class Table:
    """A constant for each timestep; `rows` are the stored timesteps, as rows of the SubNet."""

    name: str
    type: TensorType
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Callee:
    """The target of calls: a node of the BlockGraph, or a segment of several (`members`).

    Inputs and outputs carry the names that their values have in the BlockGraph, and the types of
    one lane. `stacked` names the inputs that have an entry for each lane; it is empty where calls
    are not batched. Costs are those of one lane.
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
    """An execution of a callee at step `step`, or at PROLOGUE.

    `results` has the lanes of the first output, then those of the second, and so on.
    """

    step: int
    callee: str
    operands: tuple[Operand, ...]
    results: tuple[str, ...]

    @property
    def width(self) -> int:
        """The number of lanes."""
        stacks = (operand for operand in self.operands if isinstance(operand, Stack))
        return next((len(stack.lanes) for stack in stacks), 1)

    @property
    def outputs(self) -> tuple[tuple[str, ...], ...]:
        """The results of each output of the callee, one for each lane."""
        width = self.width
        return tuple(
            self.results[first : first + width] for first in range(0, len(self.results), width)
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the values that the call reads, each as often as it is read."""
        return tuple(leaf.name for leaf in self.leaves if isinstance(leaf, Read))

    @property
    def writes(self) -> tuple[str, ...]:
        """The names of the values that the call defines."""
        return self.results

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The operands, with each stack replaced by its lanes."""
        return tuple(leaf for operand in self.operands for leaf in leaves(operand))


@dataclass(frozen=True, slots=True)
class Combine:
    """A linear combination: result = sum of coefficient * value, added in this order."""

    step: int
    result: str
    terms: tuple[tuple[float, str], ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the values that are added, each as often as it is."""
        return tuple(name for _, name in self.terms)

    @property
    def writes(self) -> tuple[str, ...]:
        """The name of the sum."""
        return (self.result,)


Statement: TypeAlias = Call | Combine


@dataclass(frozen=True, slots=True)
class Slot:
    """The bytes [offset, offset + nbytes) of the arena, holding `value` while it is live."""

    value: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Draw:
    """A plan input that is noise of unit variance drawn during sampling: draw `index` of a seed.

    Draw 0 is the initial noise. A scheduler may draw more than is used.
    """

    value: str
    index: int


def leaves(operand: Operand) -> tuple[Leaf, ...]:
    """Returns the lanes of a stack, or the operand itself."""
    return operand.lanes if isinstance(operand, Stack) else (operand,)


def map_leaves(operand: Operand, change: Callable[[Leaf], Leaf]) -> Operand:
    """Returns the operand with `change` applied to it, or to each lane of a stack."""
    if isinstance(operand, Stack):
        return Stack(tuple(map(change, operand.lanes)))
    return change(operand)
