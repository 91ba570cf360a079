"""Launches: the plan as a flat list of engine runs, with the place of every tensor in memory.

Nothing is left to decide: a backend allocates the regions, fills those with contents, and runs
the launches in order. No device is needed to make the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.manifest.records import PartRecord
from dipgo.ir.plan.nodes import PROLOGUE, Call, Combine, Operand, Read, Stack, TableRow, leaves
from dipgo.ir.plan.plan import Plan, value_types
from dipgo.ir.types import TensorType

ARENA, RESULT, COEFFICIENTS = "arena", "result", "coefficients"

ALIGNMENT = 256
"""Bytes; what CUDA allocates at, and kernels may count on."""

_SCALAR = TensorType("f32", ())


@dataclass(frozen=True, slots=True)
class Place:
    """A byte of a region."""

    region: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """A tensor of an engine, by its name there, with the type it has in this launch."""

    tensor: str
    type: TensorType
    place: Place


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of an engine. `segment` is None for a part of a linear combination."""

    engine: str
    step: int
    segment: str | None
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]


@dataclass(frozen=True)
class LaunchList:
    """`regions` maps names to bytes; `contents` are written once, before the first launch."""

    launches: tuple[Launch, ...]
    regions: Mapping[str, int]
    contents: Mapping[str, NDArray[np.uint8]]
    inputs: Mapping[str, TensorType]
    result: TensorType

    @property
    def nbytes(self) -> int:
        """Bytes of all regions."""
        return sum(self.regions.values())


def input_region(name: str) -> str:
    """The region of one of the plan's inputs."""
    return f"input {name}"


def combine_engine(dtype: str) -> str:
    """The name, among engines, of the linear combination of that element type."""
    return f"combine {dtype}"


def list_launches(plan: Plan, tables: Mapping[str, NDArray[Any]]) -> LaunchList:
    """The plan's launches; `tables` has, for every table, its rows along the first axis."""
    builder = _Builder(plan)
    launches = tuple(one for s in plan.statements for one in builder.launch(s))
    contents = {COEFFICIENTS: _apart(np.asarray([*builder.coefficients, 0.0], np.float32))}
    contents |= {_table_region(name): _apart(array) for name, array in tables.items()}
    for region, (table, rows) in builder.stacks.items():
        contents[region] = _bytes(tables[table][rows])
    regions = {
        ARENA: max(plan.arena_nbytes, 1),
        RESULT: builder.types[plan.result].nbytes,
        **{input_region(value.name): value.type.nbytes for value in plan.inputs},
        **{name: array.nbytes for name, array in contents.items()},
        **builder.scratch,
    }
    inputs = {value.name: value.type for value in plan.inputs}
    return LaunchList(launches, regions, contents, inputs, builder.types[plan.result])


def launches_of_parts(parts: Mapping[str, PartRecord]) -> list[Launch]:
    """A launch for each graph around the plan, from regions `input` to the region RESULT."""
    return [launch_of_part(name, part) for name, part in parts.items()]


def launch_of_part(name: str, part: PartRecord) -> Launch:
    """The engine is called as the part is. Its outputs lie as `offsets_of_part` has them."""
    inputs = tuple(
        Binding(one.name, TensorType.parse(one.type), Place(input_region(one.name)))
        for one in part.inputs
    )
    outputs = tuple(
        Binding(one.name, TensorType.parse(one.type), Place(RESULT, offset))
        for one, offset in zip(part.outputs, offsets_of_part(part), strict=False)
    )
    return Launch(name, PROLOGUE, name, inputs, outputs)


def offsets_of_part(part: PartRecord) -> list[int]:
    """Where in the region RESULT each output begins, and at last where all end, in bytes."""
    sizes = (aligned(TensorType.parse(one.type).nbytes) for one in part.outputs)
    return list(accumulate(sizes, initial=0))


def list_part_launches(name: str, part: PartRecord) -> LaunchList:
    """A part by itself, as a list of one launch. The result is the bytes of all its outputs."""
    launch = launch_of_part(name, part)
    result = TensorType("u8", (offsets_of_part(part)[-1],))
    regions = {one.place.region: one.type.nbytes for one in launch.inputs}
    regions[RESULT] = result.nbytes
    inputs = {one.tensor: one.type for one in launch.inputs}
    return LaunchList((launch,), regions, {}, inputs, result)


def _table_region(name: str) -> str:
    return f"table {name}"


@dataclass
class _Builder:
    """Where every value of the plan lies."""

    plan: Plan
    coefficients: dict[float, int] = field(default_factory=dict)
    scratch: dict[str, int] = field(default_factory=dict)
    stacks: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    """Regions of rows that are the lanes of one operand: the table, and where in it they are."""

    def __post_init__(self) -> None:
        plan = self.plan
        self.types = value_types(plan)
        self.callees = {callee.name: callee for callee in plan.callees}
        self.inputs = {value.name for value in plan.inputs}
        self.offsets = {slot.value: slot.offset for slot in plan.slots}
        self.rows = {table.name: (table.type, table.rows) for table in plan.tables}

    def launch(self, statement: Call | Combine) -> Iterator[Launch]:
        """One for a call, and for a combination one fewer than it has terms."""
        if isinstance(statement, Call):
            yield self._launch_call(statement)
        else:
            yield from self._launch_combine(statement)

    def _launch_call(self, call: Call) -> Launch:
        callee = self.callees[call.callee]
        inputs = tuple(
            Binding(
                value.name,
                _with_lanes(value.type, call) if value.name in callee.stacked else value.type,
                self._place_of(operand),
            )
            for value, operand in zip(callee.inputs, call.operands, strict=True)
        )
        outputs = tuple(
            Binding(
                value.name,
                _with_lanes(value.type, call) if callee.stacked else value.type,
                self._place(results[0]),
            )
            for value, results in zip(callee.outputs, call.outputs, strict=True)
        )
        return Launch(call.callee, call.step, call.callee, inputs, outputs)

    def _launch_combine(self, combine: Combine) -> Iterator[Launch]:
        """sum = c0 x0 + c1 x1, then sum + c2 x2 and so on, by the one graph a x + b y."""
        kind = _flat(self.types[combine.result])
        terms = [(coefficient, self._place(name)) for coefficient, name in combine.terms]
        while len(terms) < 2:
            terms.append((0.0, terms[0][1]))
        total, rest = terms[0], terms[1:]
        for index, term in enumerate(rest):
            last = index == len(rest) - 1
            target = self._place(combine.result) if last else self._scratch(index, kind)
            inputs: list[Binding] = []
            for name, (coefficient, place) in zip("xy", (total, term), strict=True):
                inputs.append(Binding(name, kind, place))
                number = self._coefficient(coefficient)
                inputs.append(Binding(f"{name}_coefficient", _SCALAR, number))
            outputs = (Binding("sum", kind, target),)
            yield Launch(combine_engine(kind.dtype), combine.step, None, tuple(inputs), outputs)
            total = (1.0, target)

    def _place(self, name: str) -> Place:
        """Of a value; the result is kept apart, to be read when all is done."""
        if name == self.plan.result:
            return Place(RESULT)
        if name in self.inputs:
            return Place(input_region(name))
        return Place(ARENA, self.offsets[name])

    def _place_of(self, operand: Operand) -> Place:
        """Of a value, of a row of a table, or of the first lane of a stack."""
        leaf = leaves(operand)[0]
        if isinstance(leaf, Read):
            return self._place(leaf.name)
        kind, rows = self.rows[leaf.table]
        if isinstance(operand, Stack):
            chosen = [rows.index(one.row) for one in operand.lanes if isinstance(one, TableRow)]
            region = f"{_table_region(leaf.table)} rows {chosen}"
            self.stacks[region] = (leaf.table, chosen)
            return Place(region)
        return Place(_table_region(leaf.table), aligned(kind.nbytes) * rows.index(leaf.row))

    def _coefficient(self, number: float) -> Place:
        index = self.coefficients.setdefault(number, len(self.coefficients))
        return Place(COEFFICIENTS, aligned(_SCALAR.nbytes) * index)

    def _scratch(self, index: int, kind: TensorType) -> Place:
        """One of two regions, by turns, for the partial sums of long combinations."""
        name = f"scratch {index % 2}"
        self.scratch[name] = max(self.scratch.get(name, 0), kind.nbytes)
        return Place(name)


def aligned(nbytes: int) -> int:
    """The least multiple of ALIGNMENT that is not below."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _apart(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of the rows along the first axis, each at a multiple of ALIGNMENT."""
    rows = _bytes(array).reshape(len(array), -1)
    padding = aligned(rows.shape[1]) - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, padding))).reshape(-1)


def _with_lanes(kind: TensorType, call: Call) -> TensorType:
    """The lanes of a stack, or of an output, lie side by side: they are one tensor."""
    return TensorType(kind.dtype, (call.width, *kind.shape))


def _flat(kind: TensorType) -> TensorType:
    return TensorType(kind.dtype, (prod(kind.shape),))
