"""The manifest: `plan.json` of an export directory, from which engines run it. No torch.

It is kept apart from the plan's own classes so that the file format has one place of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from dipgo.errors import DipgoError
from dipgo.graph import DTYPE_NBYTES, TensorType, Value
from dipgo.json_file import decode_json, read_file
from dipgo.plan import (
    Call,
    Callee,
    Combine,
    Operand,
    Plan,
    Read,
    Slot,
    Statement,
    Step,
    Table,
    TableRow,
    value_types,
)
from dipgo.plan_check import verify

MANIFEST_FILE = "plan.json"
WEIGHTS_FILE = "weights.safetensors"
CONSTANTS_FILE = "constants.safetensors"
COMBINE_FILE = "combine.onnx"
FORMAT: Literal["dipgo.export"] = "dipgo.export"
VERSION: Literal[1] = 1
REMEDY = "the export is damaged: export again"

Count: TypeAlias = Annotated[int, Meta(ge=0)]
FileName: TypeAlias = Annotated[str, Meta(pattern=r"^\w[^/\\]*$")]
"""Of a file within the directory, never a path out of it."""
Type: TypeAlias = Annotated[
    str, Meta(pattern=rf"^({'|'.join(DTYPE_NBYTES)})\[([1-9]\d*(,[1-9]\d*)*)?\]$")
]
"""As in the plan's text: `f32[2,77,768]`."""


class TensorRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named tensor."""

    name: str
    type: Type


One: TypeAlias = Annotated[list[TensorRecord], Meta(min_length=1, max_length=1)]


class SegmentRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ONNX graph; `members` are the blocks and glue that it computes."""

    name: str
    file: FileName
    members: list[str]
    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    macs: Count
    attention_macs: Count
    parameters: Count


class StepRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An evaluation: the scheduler's timestep, its row in the SubNet, the row's gates."""

    timestep: float
    row: Count
    gates: Annotated[str, Meta(pattern="^[01]*$")]


class TableRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of CONSTANTS_FILE: one entry along its first axis for each of `rows`."""

    name: str
    type: Type
    rows: list[Count]


class CallRecord(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="call", tag_field="op"
):
    """Run a segment. Operands are `%value` or `table[row]`; results are values."""

    step: Count
    segment: str
    operands: list[str]
    results: list[str]


class CombineRecord(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="combine", tag_field="op"
):
    """result = sum of coefficients[i] * values[i], in float32, in this order."""

    step: Count
    result: str
    coefficients: Annotated[list[float], Meta(min_length=1)]
    values: list[str]


class SlotRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes [offset, offset + nbytes) of the arena."""

    value: str
    offset: Count
    nbytes: Count


class ProgramRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plan. Statements are executed in order."""

    name: str
    num_inference_steps: Annotated[int, Meta(ge=1)]
    blocks: list[str]
    steps: Annotated[list[StepRecord], Meta(min_length=1)]
    inputs: list[TensorRecord]
    tables: list[TableRecord]
    statements: list[CallRecord | CombineRecord]
    result: str
    slots: list[SlotRecord]
    arena_nbytes: Count


class ModelRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was exported; `source` is an `arch:` name or a pipeline's own name, never a path."""

    class_name: str = msgspec.field(name="class")
    config_sha256: str
    source: str


class SamplerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scheduler whose arithmetic the plan's combinations are.

    Noise of unit variance times `init_noise_sigma` is what goes in as `latents`.
    """

    scheduler_class: str = msgspec.field(name="class")
    config: dict[str, Any]
    init_noise_sigma: float


class PartRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph that runs before or after the plan: `text_encoder` or `vae_decoder`."""

    file: FileName
    inputs: One
    outputs: One


class TokenizerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`file` is read by the `tokenizers` library; every prompt is padded to `length`."""

    file: FileName
    length: Count
    pad_id: Count


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of the directory must be."""

    sha256: str
    nbytes: Count


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`plan.json`. Units: bytes. Names of tensors are those of the ONNX graphs."""

    format: Literal["dipgo.export"]
    version: Literal[1]
    dipgo: str
    model: ModelRecord
    sampler: SamplerRecord
    precision: Literal["fp32", "fp16"]
    opset: int
    batch: Annotated[int, Meta(ge=1)]
    guidance: bool
    inputs: list[TensorRecord]
    outputs: One
    segments: list[SegmentRecord]
    program: ProgramRecord
    parts: dict[str, PartRecord]
    tokenizer: TokenizerRecord | None
    files: dict[FileName, FileRecord]


def tensor_records(values: tuple[Value, ...]) -> list[TensorRecord]:
    """Values as they stand in the manifest."""
    return [TensorRecord(value.name, str(value.type)) for value in values]


def segment_records(plan: Plan) -> list[SegmentRecord]:
    """The plan's callees, each with the file of its graph."""
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
        )
        for callee in plan.callees
    ]


def program_record(plan: Plan) -> ProgramRecord:
    """The plan as it stands in the manifest; `plan_of` is the inverse."""
    return ProgramRecord(
        name=plan.name,
        num_inference_steps=plan.num_inference_steps,
        blocks=list(plan.blocks),
        steps=[StepRecord(step.timestep, step.row, step.gates) for step in plan.steps],
        inputs=tensor_records(plan.inputs),
        tables=[TableRecord(one.name, str(one.type), list(one.rows)) for one in plan.tables],
        statements=[_statement_record(statement) for statement in plan.statements],
        result=plan.result,
        slots=[SlotRecord(slot.value, slot.offset, slot.nbytes) for slot in plan.slots],
        arena_nbytes=plan.arena_nbytes,
    )


def _statement_record(statement: Statement) -> CallRecord | CombineRecord:
    if isinstance(statement, Combine):
        numbers, names = zip(*statement.terms, strict=True)
        return CombineRecord(statement.step, statement.result, list(numbers), list(names))
    operands = [str(operand) for operand in statement.operands]
    return CallRecord(statement.step, statement.callee, operands, list(statement.results))


def plan_of(manifest: Manifest) -> Plan:
    """The plan of an export. Raises ValueError where a record cannot be part of one."""
    program = manifest.program
    return Plan(
        name=program.name,
        num_inference_steps=program.num_inference_steps,
        blocks=tuple(program.blocks),
        steps=tuple(Step(one.timestep, one.row, one.gates) for one in program.steps),
        inputs=_values(program.inputs),
        tables=tuple(
            Table(one.name, TensorType.parse(one.type), tuple(one.rows)) for one in program.tables
        ),
        callees=tuple(map(_callee, manifest.segments)),
        statements=tuple(map(_statement, program.statements)),
        result=program.result,
        slots=tuple(Slot(one.value, one.offset, one.nbytes) for one in program.slots),
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
    )


def _statement(record: CallRecord | CombineRecord) -> Statement:
    if isinstance(record, CombineRecord):
        terms = tuple(zip(record.coefficients, record.values, strict=True))
        return Combine(record.step, record.result, terms)
    operands = tuple(map(_operand, record.operands))
    return Call(record.step, record.segment, operands, tuple(record.results))


def _operand(text: str) -> Operand:
    if text.startswith("%"):
        return Read(text[1:])
    table, row = text.removesuffix("]").rsplit("[", 1)
    return TableRow(table, int(row))


def encode(manifest: Manifest) -> bytes:
    """Indented JSON; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


class _Head(msgspec.Struct):
    """What is read first, to tell what the rest must be."""

    format: str = ""
    version: int = 0


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an export directory, its plan verified.

    Raises DipgoError where the directory is not an export of this version or its plan is broken.
    """
    path = directory / MANIFEST_FILE
    content = read_file(path, expected="the manifest of an export directory")
    head = decode_json(content, _Head, name=str(path), remedy=REMEDY)
    if (head.format, head.version) != (FORMAT, VERSION):
        raise DipgoError(
            str(path),
            found=f"format {head.format!r}, version {head.version}",
            expected=f"format {FORMAT!r}, version {VERSION}",
            remedy="export again with this version of dipgo",
        )
    manifest = decode_json(content, Manifest, name=str(path), remedy=REMEDY)
    try:
        plan = verify(plan_of(manifest))
    except (ValueError, LookupError) as error:
        raise _damaged(path, str(error)) from None
    for problem in _contradictions(manifest, plan):
        raise _damaged(path, problem)
    return manifest


def _contradictions(manifest: Manifest, plan: Plan) -> Iterator[str]:
    """Between the manifest's parts, as far as the plan's own verifier cannot see them."""
    if manifest.inputs != manifest.program.inputs:
        yield "inputs that are not those of the program"
    if "latents" not in {value.name for value in plan.inputs}:
        yield "no input `latents`"
    if {len(step.gates) for step in plan.steps} != {len(plan.blocks)}:
        yield f"steps whose gates are not {len(plan.blocks)}, one a block"
    unplaced = set(value_types(plan)) - {value.name for value in plan.inputs}
    for name in sorted(unplaced - {slot.value for slot in plan.slots}):
        yield f"no slot for %{name}"
    if "text_encoder" in manifest.parts and manifest.tokenizer is None:
        yield "a text encoder without a tokenizer"


def _damaged(path: Path, problem: str) -> DipgoError:
    return DipgoError(str(path), found=problem, expected="a valid manifest", remedy=REMEDY)
