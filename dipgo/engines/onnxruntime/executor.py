"""The executor: binds every call of the plan once, then only runs them, in order.

Slots, tables and inputs have fixed addresses, so nothing is copied between calls and nothing is
left to decide at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.export_dir import ExportDirectory
from dipgo.engines.onnxruntime.memory import NUMPY_DTYPES, Block
from dipgo.engines.onnxruntime.session import SessionSettings, make_session
from dipgo.engines.runner import OnStep
from dipgo.graph import TensorType
from dipgo.manifest import COMBINE_FILE
from dipgo.plan import Call, Combine, Leaf, Plan, Read, Statement, leaves, value_types

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, slots=True)
class BoundCall:
    """A session with the addresses that one statement reads and writes."""

    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    segment: str | None
    """None for a part of a linear combination."""
    step: int


class Executor:
    """Runs one plan on ONNX Runtime; not for several threads at once."""

    def __init__(self, export: ExportDirectory, settings: SessionSettings) -> None:
        self._plan = export.plan
        self._callees = {callee.name: callee for callee in self._plan.callees}
        self._device = settings.provider
        self._sessions = {
            segment.name: make_session(export.path / segment.file, settings)
            for segment in export.manifest.segments
        }
        self._combine = make_session(export.path / COMBINE_FILE, settings)
        self._memory = _Memory(self._plan, export.tables, self._device)
        self._calls = [call for one in self._plan.statements for call in self._bind(one)]

    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """The plan's result, and the seconds spent in each segment's calls."""
        for name, array in inputs.items():
            self._memory.inputs[name].write(array)
        seconds = dict.fromkeys(self._sessions, 0.0)
        for call in self._calls:
            started = perf_counter()
            call.session.run_with_iobinding(call.binding)
            if call.segment is not None:
                seconds[call.segment] += perf_counter() - started
                on_step(call.step)
        return self._memory.result.read(), seconds

    def _bind(self, statement: Statement) -> Iterator[BoundCall]:
        if isinstance(statement, Call):
            yield self._bind_call(statement)
        else:
            yield from self._bind_combine(statement)

    def _bind_call(self, call: Call) -> BoundCall:
        callee = self._callees[call.callee]
        memory, bound = self._memory, _Binding(self._sessions[call.callee], self._device)
        for value, operand in zip(callee.inputs, call.operands, strict=True):
            kind = _with_lanes(value.type, call) if value.name in callee.stacked else value.type
            bound.input(value.name, kind, memory.address_of(leaves(operand)[0]))
        for value, results in zip(callee.outputs, call.outputs, strict=True):
            kind = _with_lanes(value.type, call) if callee.stacked else value.type
            bound.output(value.name, kind, memory.address(results[0]))
        return bound.call(call.callee, call.step)

    def _bind_combine(self, combine: Combine) -> Iterator[BoundCall]:
        """sum = c0 x0 + c1 x1, then sum + c2 x2 and so on, by the one graph a x + b y."""
        memory, kind = self._memory, self._memory.types[combine.result]
        terms = [(coefficient, memory.address(name)) for coefficient, name in combine.terms]
        while len(terms) < 2:
            terms.append((0.0, terms[0][1]))
        total, rest = terms[0], terms[1:]
        for index, term in enumerate(rest):
            last = index == len(rest) - 1
            target = memory.address(combine.result) if last else memory.scratch(index, kind)
            bound = _Binding(self._combine, self._device)
            for name, (coefficient, address) in zip("xy", (total, term), strict=True):
                bound.input(name, kind, address)
                bound.input(f"{name}_coefficient", _SCALAR, memory.constant(coefficient))
            bound.output("sum", kind, target)
            yield bound.call(None, combine.step)
            total = (1.0, target)


def _with_lanes(kind: TensorType, call: Call) -> TensorType:
    """The lanes of a stack, or of an output, lie side by side: they are one tensor."""
    return TensorType(kind.dtype, (call.width, *kind.shape))


_SCALAR = TensorType("f32", ())


class _Binding:
    """An IOBinding under construction."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        self._session, self._device = session, device
        self._binding = session.io_binding()
        self._inputs = {one.name for one in session.get_inputs()}

    def input(self, name: str, kind: TensorType, address: int) -> None:
        if name in self._inputs:
            dtype = NUMPY_DTYPES[kind.dtype]
            self._binding.bind_input(name, self._device, 0, dtype, kind.shape, address)

    def output(self, name: str, kind: TensorType, address: int) -> None:
        dtype = NUMPY_DTYPES[kind.dtype]
        self._binding.bind_output(name, self._device, 0, dtype, kind.shape, address)

    def call(self, segment: str | None, step: int) -> BoundCall:
        return BoundCall(self._session, self._binding, segment, step)


class _Memory:
    """Where every value of the plan lies."""

    def __init__(self, plan: Plan, tables: Mapping[str, NDArray[np.generic]], device: str) -> None:
        self._device, self._plan = device, plan
        self.types = value_types(plan)
        self.inputs = {value.name: Block.empty(value.type, device) for value in plan.inputs}
        self.result = Block.empty(self.types[plan.result], device)
        self._arena = Block.arena(plan.arena_nbytes, device)
        self._tables = {name: Block(array, device) for name, array in tables.items()}
        self._rows = {table.name: (table.type.nbytes, table.rows) for table in plan.tables}
        self._offsets = {slot.value: slot.offset for slot in plan.slots}
        self._constants: dict[float, Block] = {}
        self._scratch: dict[tuple[int, TensorType], Block] = {}

    def address(self, name: str) -> int:
        """The address of a value; the result is kept apart, to be read when all is done."""
        if name == self._plan.result:
            return self.result.address()
        if name in self.inputs:
            return self.inputs[name].address()
        return self._arena.address(self._offsets[name])

    def address_of(self, leaf: Leaf) -> int:
        """The address of a value or of a row of a table."""
        if isinstance(leaf, Read):
            return self.address(leaf.name)
        nbytes, rows = self._rows[leaf.table]
        return self._tables[leaf.table].address(nbytes * rows.index(leaf.row))

    def constant(self, number: float) -> int:
        """The address of a scalar f32."""
        block = self._constants.get(number)
        if block is None:
            block = self._constants[number] = Block(np.asarray(number, np.float32), self._device)
        return block.address()

    def scratch(self, index: int, kind: TensorType) -> int:
        """One of two buffers of a type, by turns, for the partial sums of long combinations."""
        key = (index % 2, kind)
        if key not in self._scratch:
            self._scratch[key] = Block.empty(kind, self._device)
        return self._scratch[key].address()
