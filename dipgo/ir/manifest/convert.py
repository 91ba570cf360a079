"""Converts a plan into the manifest's records, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.ir.manifest.records import (
    CallRecord,
    CombineRecord,
    DrawRecord,
    Manifest,
    ProgramRecord,
    SamplerRecord,
    SegmentRecord,
    SlotRecord,
    StepRecord,
    TableRecord,
    TensorRecord,
)
from dipgo.ir.plan.nodes import (
    Call,
    Callee,
    Combine,
    Draw,
    Leaf,
    Operand,
    Read,
    Slot,
    Stack,
    Statement,
    Step,
    Table,
    TableRow,
)
from dipgo.ir.plan.plan import Plan
from dipgo.ir.types import TensorType, Value

if TYPE_CHECKING:
    from dipgo.ir.sampler import Sampler


def sampler_record(sampler: Sampler) -> SamplerRecord:
    """Returns what the manifest says of a sampler: its arithmetic is in the plan."""
    return SamplerRecord(
        scheduler_class=sampler.scheduler_class,
        config=dict(sampler.config),
        init_noise_sigma=sampler.start.noise_scale,
        eta=sampler.eta,
        image_scale=sampler.start.image_scale,
        strength=sampler.start.strength,
        noise_draws=sampler.noise_draws,
    )


def tensor_records(values: tuple[Value, ...]) -> list[TensorRecord]:
    """Returns the values' records in the manifest."""
    return [TensorRecord(value.name, str(value.type)) for value in values]


def segment_records(plan: Plan) -> list[SegmentRecord]:
    """Returns a record for each callee of the plan, with the file of its graph."""
    return [
        SegmentRecord(
            name=callee.name,
            file=f"{callee.name}.onnx",
            members=list(callee.members),
            inputs=tensor_records(callee.inputs),
            outputs=tensor_records(callee.outputs),
            macs=callee.macs,
            attention_macs=callee.attention_macs,
            parameters=callee.parameters,
            stacked=list(callee.stacked),
        )
        for callee in plan.callees
    ]


def program_record(plan: Plan) -> ProgramRecord:
    """Returns the plan's record in the manifest; `plan_of` is the inverse."""
    return ProgramRecord(
        name=plan.name,
        num_inference_steps=plan.num_inference_steps,
        blocks=list(plan.blocks),
        steps=[StepRecord(step.timestep, step.row, step.gates) for step in plan.steps],
        inputs=tensor_records(plan.inputs),
        state=plan.state,
        tables=[
            TableRecord(table.name, str(table.type), list(table.rows)) for table in plan.tables
        ],
        statements=[_statement_record(statement) for statement in plan.statements],
        result=plan.result,
        slots=[SlotRecord(slot.value, slot.offset, slot.nbytes) for slot in plan.slots],
        arena_nbytes=plan.arena_nbytes,
        draws=[DrawRecord(draw.value, draw.index) for draw in plan.draws],
    )


def _statement_record(statement: Statement) -> CallRecord | CombineRecord:
    if isinstance(statement, Combine):
        numbers, names = zip(*statement.terms, strict=True)
        return CombineRecord(statement.step, statement.result, list(numbers), list(names))
    operands = [str(operand) for operand in statement.operands]
    return CallRecord(statement.step, statement.callee, operands, list(statement.results))


def plan_of(manifest: Manifest) -> Plan:
    """Returns the plan of an export, not yet verified.

    Raises:
        ValueError: A record cannot be part of a plan.
    """
    program = manifest.program
    return Plan(
        name=program.name,
        num_inference_steps=program.num_inference_steps,
        blocks=tuple(program.blocks),
        steps=tuple(Step(step.timestep, step.row, step.gates) for step in program.steps),
        inputs=_values(program.inputs),
        state=program.state,
        tables=tuple(
            Table(table.name, TensorType.parse(table.type), tuple(table.rows))
            for table in program.tables
        ),
        callees=tuple(map(_callee, manifest.segments)),
        statements=tuple(map(_statement, program.statements)),
        result=program.result,
        slots=tuple(Slot(slot.value, slot.offset, slot.nbytes) for slot in program.slots),
        draws=tuple(Draw(draw.value, draw.index) for draw in program.draws),
    )


def _values(records: list[TensorRecord]) -> tuple[Value, ...]:
    return tuple(Value(record.name, TensorType.parse(record.type)) for record in records)


def _callee(record: SegmentRecord) -> Callee:
    return Callee(
        name=record.name,
        members=tuple(record.members),
        inputs=_values(record.inputs),
        outputs=_values(record.outputs),
        macs=record.macs,
        attention_macs=record.attention_macs,
        parameters=record.parameters,
        stacked=tuple(record.stacked),
    )


def _statement(record: CallRecord | CombineRecord) -> Statement:
    if isinstance(record, CombineRecord):
        terms = tuple(zip(record.coefficients, record.values, strict=True))
        return Combine(record.step, record.result, terms)
    operands = tuple(map(_operand, record.operands))
    return Call(record.step, record.segment, operands, tuple(record.results))


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return Stack(tuple(map(_leaf, text.strip("{}").split())))
    return _leaf(text)


def _leaf(text: str) -> Leaf:
    if text.startswith("%"):
        return Read(text[1:])
    table, row = text.removesuffix("]").rsplit("[", 1)
    return TableRow(table, int(row))
