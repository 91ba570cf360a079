"""Lists the plan as engine runs, with the place of every tensor in memory.

Nothing is left to decide: a backend allocates the regions, fills those with contents, and runs the
launches in order. No device is needed to make the list.
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
"""Bytes; CUDA allocates at multiples of this, and kernels may rely on it."""

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
    """A run of an engine. `segment` is None for a part of a linear combination."""

    engine: str
    step: int
    segment: str | None
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]


@dataclass(frozen=True)
class LaunchList:
    """The launches of a plan, and the memory that they use.

    `regions` maps names to bytes; `contents` are written once, before the first launch.
    """

    launches: tuple[Launch, ...]
    regions: Mapping[str, int]
    contents: Mapping[str, NDArray[np.uint8]]
    inputs: Mapping[str, TensorType]
    result: TensorType

    @property
    def nbytes(self) -> int:
        """Returns the bytes of all regions."""
        return sum(self.regions.values())


def input_region(name: str) -> str:
    """Returns the region of an input of the plan."""
    return f"input {name}"


def combine_engine(dtype: str) -> str:
    """Returns the engine's name for the linear combination of an element type."""
    return f"combine {dtype}"


def list_launches(plan: Plan, tables: Mapping[str, NDArray[Any]]) -> LaunchList:
    """Returns the plan's launches.

    Args:
        plan: The plan, with slots.
        tables: For every table, its rows along the first axis.
    """
    builder = _Builder(plan)
    launches = tuple(launch for s in plan.statements for launch in builder.launch(s))
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
    """Returns a launch for each graph around the plan, from input regions to RESULT."""
    return [launch_of_part(name, part) for name, part in parts.items()]


def launch_of_part(name: str, part: PartRecord) -> Launch:
    """Returns a launch of the engine named like the part, its outputs at `offsets_of_part`."""
    inputs = tuple(
        Binding(value.name, TensorType.parse(value.type), Place(input_region(value.name)))
        for value in part.inputs
    )
    outputs = tuple(
        Binding(value.name, TensorType.parse(value.type), Place(RESULT, offset))
        for value, offset in zip(part.outputs, offsets_of_part(part), strict=False)
    )
    return Launch(name, PROLOGUE, name, inputs, outputs)


def offsets_of_part(part: PartRecord) -> list[int]:
    """Returns the byte in the region RESULT at which each output begins, and last their end."""
    sizes = (aligned(TensorType.parse(value.type).nbytes) for value in part.outputs)
    return list(accumulate(sizes, initial=0))


def list_part_launches(name: str, part: PartRecord) -> LaunchList:
    """Returns a list of one launch for a part; the result is the bytes of all its outputs."""
    launch = launch_of_part(name, part)
    result = TensorType("u8", (offsets_of_part(part)[-1],))
    regions = {binding.place.region: binding.type.nbytes for binding in launch.inputs}
    regions[RESULT] = result.nbytes
    inputs = {binding.tensor: binding.type for binding in launch.inputs}
    return LaunchList((launch,), regions, {}, inputs, result)


def _table_region(name: str) -> str:
    return f"table {name}"


@dataclass
class _Builder:
    """The places of all values of the plan."""

    plan: Plan
    coefficients: dict[float, int] = field(default_factory=dict)
    scratch: dict[str, int] = field(default_factory=dict)
    stacks: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    """Regions of rows that are the lanes of one operand: the table and the rows' indices in it."""

    def __post_init__(self) -> None:
        plan = self.plan
        self.types = value_types(plan)
        self.callees = {callee.name: callee for callee in plan.callees}
        self.inputs = {value.name for value in plan.inputs}
        self.offsets = {slot.value: slot.offset for slot in plan.slots}
        self.rows = {
            table.name: (table.type, {row: place for place, row in enumerate(table.rows)})
            for table in plan.tables
        }

    def launch(self, statement: Call | Combine) -> Iterator[Launch]:
        """Yields a launch for a call, and for a combination one fewer than it has terms."""
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
        """Computes c0 x0 + c1 x1, then adds c2 x2 and so on, each by the same graph a x + b y."""
        flat = _flat(self.types[combine.result])
        terms = [(coefficient, self._place(name)) for coefficient, name in combine.terms]
        while len(terms) < 2:
            terms.append((0.0, terms[0][1]))
        total, rest = terms[0], terms[1:]
        for index, term in enumerate(rest):
            last = index == len(rest) - 1
            target = self._place(combine.result) if last else self._scratch(index, flat)
            inputs: list[Binding] = []
            for name, (coefficient, place) in zip("xy", (total, term), strict=True):
                inputs.append(Binding(name, flat, place))
                number = self._coefficient(coefficient)
                inputs.append(Binding(f"{name}_coefficient", _SCALAR, number))
            outputs = (Binding("sum", flat, target),)
            yield Launch(combine_engine(flat.dtype), combine.step, None, tuple(inputs), outputs)
            total = (1.0, target)

    def _place(self, name: str) -> Place:
        """Returns the place of a value; the result has its own region, read at the end."""
        if name == self.plan.result:
            return Place(RESULT)
        if name in self.inputs:
            return Place(input_region(name))
        return Place(ARENA, self.offsets[name])

    def _place_of(self, operand: Operand) -> Place:
        """Returns the place of a value, of a row of a table, or of the first lane of a stack."""
        leaf = leaves(operand)[0]
        if isinstance(leaf, Read):
            return self._place(leaf.name)
        row_type, rows = self.rows[leaf.table]
        if isinstance(operand, Stack):
            chosen = [rows[lane.row] for lane in operand.lanes if isinstance(lane, TableRow)]
            region = f"{_table_region(leaf.table)} rows {chosen}"
            self.stacks[region] = (leaf.table, chosen)
            return Place(region)
        return Place(_table_region(leaf.table), aligned(row_type.nbytes) * rows[leaf.row])

    def _coefficient(self, number: float) -> Place:
        index = self.coefficients.setdefault(number, len(self.coefficients))
        return Place(COEFFICIENTS, aligned(_SCALAR.nbytes) * index)

    def _scratch(self, index: int, tensor_type: TensorType) -> Place:
        """Returns one of two interleaved regions for the partial sums of long combinations."""
        name = f"scratch {index % 2}"
        self.scratch[name] = max(self.scratch.get(name, 0), tensor_type.nbytes)
        return Place(name)


def aligned(nbytes: int) -> int:
    """Returns the least multiple of ALIGNMENT that is not below `nbytes`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _apart(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns the bytes of the rows along the first axis, each at a multiple of ALIGNMENT."""
    rows = _bytes(array).reshape(len(array), -1)
    padding = aligned(rows.shape[1]) - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, padding))).reshape(-1)


def _with_lanes(lane_type: TensorType, call: Call) -> TensorType:
    """Returns the type with an axis of lanes: the lanes lie side by side, as one tensor."""
    return TensorType(lane_type.dtype, (call.width, *lane_type.shape))


def _flat(tensor_type: TensorType) -> TensorType:
    return TensorType(tensor_type.dtype, (prod(tensor_type.shape),))
