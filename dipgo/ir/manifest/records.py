"""Records of the manifest, `plan.json` of an export directory, field by field.

They are kept apart from the plan's classes, so that the file format has its own place.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from dipgo.ir.fitted import Fitted, LoraRecord
from dipgo.ir.manifest.names import END, Count, FileName, GraphName, Nbytes, TensorName, Type
from dipgo.ir.types import PrecisionName

MANIFEST_FILE = "plan.json"

SIZE_PATTERN = r"^([1-9]\d{0,4}x)?[1-9]\d{0,5}x[1-9]\d{0,5}" + END
"""A size: `512x768`, height x width in pixels, or `4x512x768`, with the pictures a run first."""

WEIGHTS_FILE = "weights.safetensors"

CONSTANTS_FILE = "constants.safetensors"

MOST_TOKENS = 65536
"""Tokens of a text: T5's in diffusers are 512 at most."""

Side: TypeAlias = Annotated[int, Meta(ge=1, lt=2**31)]

TokenId: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]

MOST_TERMS = 10_000
"""Terms of a linear combination, each a launch: fused steps have some for each of them."""

MOST_PICTURES = 65536
"""Pictures of a run."""

MOST_STEPS = 100_000
"""Steps of a sampler: a hundred times those that models are trained with."""

FORMAT: Literal["dipgo.export"] = "dipgo.export"

VERSION: Literal[2] = 2

REMEDY = "the export is damaged: export again"

MOST_DRAWS = 10_000
"""Draws of noise by a scheduler: a thousand steps with several each. More would take for ever."""


def manifest_file(size: str = "") -> str:
    """Returns the name of the manifest of a size such as `512x768`, or of the export's own."""
    return f"plan-{size}.json" if size else MANIFEST_FILE


def constants_file(size: str = "") -> str:
    """Returns the name of the file with the tables of a size, or of the export's own size.

    Sizes have their own tables because a table may have an axis for the pictures.
    """
    return f"constants-{size}.safetensors" if size else CONSTANTS_FILE


class TensorRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named tensor."""

    name: TensorName
    type: Type


One: TypeAlias = Annotated[list[TensorRecord], Meta(min_length=1, max_length=1)]


class SegmentRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An ONNX graph; `members` are the blocks and glue that it computes.

    The inputs in `stacked` have a leading axis with an entry for each lane; if there are any, all
    outputs have it too. Types and costs are those of one lane.
    """

    name: GraphName
    file: FileName
    members: list[str]
    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    macs: Count
    attention_macs: Count
    parameters: Count
    stacked: list[str]


class StepRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An evaluation: the scheduler's timestep, its row in the SubNet, the row's gates."""

    timestep: float
    row: Count
    gates: Annotated[str, Meta(pattern=f"^[01]*{END}")]


class TableRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of `constants.safetensors` whose first axis has an entry for each of `rows`."""

    name: str
    type: Type
    rows: list[Count]


class CallRecord(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="call", tag_field="op"
):
    """A call of a segment at a step, or in the prologue if the step is -1; results are values.

    Operands are `%value`, `table[row]` or, for a stacked input, `{lane lane …}` of these.
    """

    step: Annotated[int, Meta(ge=-1)]
    segment: str
    operands: list[str]
    results: list[str]


class CombineRecord(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="combine", tag_field="op"
):
    """A linear combination: result = sum of coefficients[i] * values[i], in float32, in order."""

    step: Count
    result: str
    coefficients: Annotated[list[float], Meta(min_length=1, max_length=MOST_TERMS)]
    values: list[str]


class SlotRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The place of a value: bytes [offset, offset + nbytes) of the arena."""

    value: str
    offset: Nbytes
    nbytes: Nbytes


class DrawRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input that is noise of unit variance: draw `index` of a seed.

    Draw 0 is the input `latents`; it alone is multiplied by `init_noise_sigma`.
    """

    value: str
    index: Annotated[int, Meta(ge=1, le=MOST_DRAWS)]


class ProgramRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plan. Statements are executed in order. `draws` are noise like `state`, drawn later."""

    name: str
    num_inference_steps: Annotated[int, Meta(ge=1, le=MOST_STEPS)]
    blocks: list[str]
    steps: Annotated[list[StepRecord], Meta(min_length=1)]
    inputs: list[TensorRecord]
    state: str
    tables: list[TableRecord]
    statements: list[CallRecord | CombineRecord]
    result: str
    slots: list[SlotRecord]
    arena_nbytes: Nbytes
    draws: list[DrawRecord] = []


class ModelRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The exported model; `source` is an `arch:` name or a pipeline's own name, never a path."""

    class_name: str = msgspec.field(name="class")
    config_sha256: str
    source: str
    loras: list[LoraRecord] = []


class SamplerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scheduler whose arithmetic the plan's combinations are.

    The input `latents` is noise of unit variance times `init_noise_sigma`. `eta` is that of the
    scheduler's steps, if they take one. An export for image-to-image has a `strength`, the share
    of the steps that is run; `image_scale` times the picture's latents are then added to the
    input. `noise_draws` is how often the scheduler draws noise after that of `latents`, whether a
    step uses it or not: so far a generator moves on.
    """

    scheduler_class: str = msgspec.field(name="class")
    config: dict[str, Any]
    init_noise_sigma: float
    eta: float = 0.0
    image_scale: float = 0.0
    strength: Annotated[float, Meta(gt=0, le=1)] | None = None
    noise_draws: Annotated[int, Meta(ge=0, le=MOST_DRAWS)] = 0


class PartRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph around the plan: `text_encoder`, `image_encoder`, `vae_encoder`, `vae_decoder`."""

    file: FileName
    inputs: Annotated[list[TensorRecord], Meta(min_length=1)]
    outputs: Annotated[list[TensorRecord], Meta(min_length=1)]


class TokenizerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tokenizer; the `tokenizers` library reads `file`, and every prompt is padded to `length`.

    `ids` and `mask` name the inputs of the text encoder, or of the plan, that it fills; `mask` is
    "" if there is no mask. If `lower`, texts are first lower-cased and stripped of white space.
    `vectors` has the textual inversions of several vectors: where one is among the tokens of a
    text, it is replaced in the text by these tokens, with spaces between them. A text of more than
    `length` tokens is cut at `truncation_side`. `end_id`, if it is there, is the last token, which
    a text that ends with it has no second time.
    """

    file: FileName
    ids: str
    mask: str
    length: Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
    pad_id: TokenId
    padding_side: Literal["left", "right"]
    lower: bool
    vectors: dict[str, list[str]] = {}
    truncation_side: Literal["left", "right"] = "right"
    end_id: TokenId | None = None


class ClassesRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The labels of a class-conditional model, 0 to `count` - 1; `count` itself is no class."""

    count: Annotated[int, Meta(ge=1, lt=2**31)]
    names: dict[str, Count]


class PipelineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The work of diffusers' pipeline of that class besides running its models.

    `guidance_scale` is its default, or the nearest scale that the SubNet was fitted for. If
    `zeros_without_negative`, all outputs of the text encoder are zeros in the unconditional rows
    when there is no negative prompt. `fixed` is conditioning that no prompt decides, a row by name,
    the same for all rows but those of the unconditional half that are in `fixed_unconditional`.
    `packed` is the rows and columns of latents f32[B, rows * columns, 4 C], each of 2 x 2 latent
    pixels; null for other latents. `left_out` names what the pipeline has and the export is
    without, with the reason.
    """

    class_name: str = msgspec.field(name="class")
    guidance_scale: float
    zeros_without_negative: bool
    fixed: dict[str, list[float]]
    classes: ClassesRecord | None
    packed: tuple[Side, Side] | None
    fixed_unconditional: dict[str, list[float]] | msgspec.UnsetType = msgspec.UNSET
    left_out: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class NumericsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The error of a segment or part in the export's precision, against fp32 on the same inputs.

    `error` is the largest relative L2 distance over `calls` calls of a real trajectory.
    """

    error: Annotated[float, Meta(ge=0)]
    calls: Count


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hash and size that a file of the directory must have."""

    sha256: str
    nbytes: Nbytes


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`plan.json`. Sizes in memory are in bytes. Names of tensors are those of the ONNX graphs.

    `kept_fp32` names everything that is in fp32 whatever the `precision`; `numerics` is by
    segment and part. `sizes` are further sizes of the export, height x width in pixels, optionally
    after the pictures a run: each has its own manifest, `plan-512x768.json`, over the same graphs.
    The graphs of a `refittable` export are valid for any weights of these names and sizes.
    `fitted` is what the SubNet was fitted for, if it says so.
    """

    format: Literal["dipgo.export"]
    version: Literal[2]
    dipgo: str
    model: ModelRecord
    sampler: SamplerRecord
    precision: PrecisionName
    kept_fp32: list[str]
    numerics: dict[str, NumericsRecord]
    opset: int
    batch: Annotated[int, Meta(ge=1, le=MOST_PICTURES)]
    guidance: bool
    sizes: list[Annotated[str, Meta(pattern=SIZE_PATTERN)]]
    inputs: list[TensorRecord]
    outputs: One
    segments: list[SegmentRecord]
    program: ProgramRecord
    parts: dict[GraphName, PartRecord]
    tokenizers: list[TokenizerRecord]
    pipeline: PipelineRecord | None
    files: dict[FileName, FileRecord]
    refittable: bool = False
    fitted: Fitted | None = None
