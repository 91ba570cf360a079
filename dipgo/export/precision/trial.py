"""The trial: runs once what is about to be exported, to see what narrow numbers cost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dipgo.common.torch_noise import initial_noise
from dipgo.compiler.compile import Compiled
from dipgo.compiler.oracle import Exact
from dipgo.compiler.request import Prepared, Progress
from dipgo.compiler.trace.precision import FP32
from dipgo.export.parts import (
    IMAGE_ENCODER,
    TEXT_ENCODER,
    VAE_DECODER,
    VAE_ENCODER,
    Part,
    PrecisionOf,
    parts_of,
    trace_part,
)
from dipgo.export.precision.compare import Numerics, check_part, check_segments
from dipgo.models.families.unet_inputs import MASK

PROMPT = "a photograph of a red house by the sea"

GUIDANCE_SCALE = 7.5


def choose_parts(
    prepared: Prepared, compiled: Compiled, check: bool, progress: Progress
) -> tuple[list[Part], dict[str, Numerics]]:
    """The pipeline's other parts, and the figures of segments and parts in narrow types.

    A part for which the narrow type will not do stays in fp32. Raises DipgoError for a segment
    for which it will not do. An fp32 export has no figures, nor has one without `check`.
    """
    precision = compiled.traced.precision
    parts = make_parts(prepared, compiled, lambda name: precision)
    if not check or precision == FP32:
        return parts, {}
    figures, unfit = try_out(prepared, compiled, parts, progress)
    if unfit:
        parts = make_parts(prepared, compiled, lambda name: FP32 if name in unfit else precision)
    return parts, figures


def try_out(
    prepared: Prepared, compiled: Compiled, parts: Sequence[Part], progress: Progress
) -> tuple[dict[str, Numerics], set[str]]:
    """The figures of segments and of parts in narrow types, and the parts that these do not suit.

    Raises DipgoError for a segment that its type does not suit.
    """
    precision = compiled.traced.precision
    with progress(f"check {precision.name} against fp32, {len(compiled.plan.steps)} steps"):
        inputs = trial_inputs(prepared, compiled, parts)
        figures, latents = check_segments(compiled.plan, compiled.traced, inputs)
    picture = [_picture(parts)]
    pictures = {VAE_DECODER: [latents], VAE_ENCODER: picture, IMAGE_ENCODER: picture}
    unfit: set[str] = set()
    for part in parts:
        if part.precision == FP32:
            continue
        with progress(f"check the {part.name.replace('_', ' ')} in {precision.name}"):
            given = pictures.get(part.name)
            if given is None:
                given = _inputs_for(prepared, part)
            found, will_do = check_part(part, given)
        if will_do:
            figures[part.name] = found
        else:
            unfit.add(part.name)
    return figures, unfit


def make_parts(prepared: Prepared, compiled: Compiled, precision_of: PrecisionOf) -> list[Part]:
    """The pipeline's other parts; none of an architecture alone."""
    if prepared.source.pipeline is None:
        return []
    model = prepared.source.at(prepared.geometry)
    state = next(value for value in compiled.plan.inputs if value.name == compiled.plan.state)
    latents = torch.zeros(state.type.shape)
    from_image = prepared.schedule.strength is not None or MASK in model.conditioning
    return [
        trace_part(part, precision_of(part.name)) for part in parts_of(model, latents, from_image)
    ]


@torch.no_grad()
def trial_inputs(
    prepared: Prepared, compiled: Compiled, parts: Sequence[Part]
) -> dict[str, torch.Tensor]:
    """Inputs of a run: noise of seed 0, a prompt where there is a text encoder, else noise."""
    generator = torch.Generator().manual_seed(0)
    plan = compiled.plan
    inputs: dict[str, torch.Tensor] = {}
    for value in plan.inputs:
        kind = value.type
        inputs[value.name] = (
            torch.randn(kind.shape, generator=generator)
            if kind.dtype == "f32"
            else torch.zeros(kind.shape, dtype=torch.int64)
        )
    state = torch.from_numpy(initial_noise(0, inputs[plan.state].shape))
    inputs[plan.state] = state * compiled.sampler.init_noise_sigma
    if "guidance_scale" in inputs:
        inputs["guidance_scale"] = torch.tensor(GUIDANCE_SCALE)
    for part in parts:
        names = [value.name for value in part.outputs]
        if set(names) <= set(inputs):
            results = Exact(part.exact).run(*_inputs_for(prepared, part))
            inputs |= dict(zip(names, results, strict=True)) | _masks(prepared, part, inputs)
    for name, numbers in prepared.source.at(prepared.geometry).fixed_conditioning.items():
        inputs[name] = torch.tensor([numbers] * prepared.geometry.rows)
    return inputs


def token_ids(prepared: Prepared, part: Part) -> dict[str, torch.Tensor]:
    """PROMPT, after an empty one for each unconditional row, as the text encoder takes them."""
    rows, _ = part.examples[0].shape
    texts = ([""] * (rows // 2) + [PROMPT] * rows)[:rows]
    encoding = prepared.source.at(prepared.geometry).text_encoding
    assert encoding is not None, "a text encoder that is not known"
    return encoding.tokenize(texts)


def _picture(parts: Sequence[Part]) -> torch.Tensor:
    """Of random colours, as large as the VAE's encoder takes it; nothing where there is none."""
    shapes = [part.examples[0].shape for part in parts if part.name == VAE_ENCODER]
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shapes[0] if shapes else (0,), generator=generator) * 2 - 1


def _inputs_for(prepared: Prepared, part: Part) -> list[torch.Tensor]:
    """In the order of the part's inputs: tokens, or its examples where it takes none."""
    if part.name != TEXT_ENCODER:
        return list(part.examples)
    tokens = token_ids(prepared, part)
    return [tokens[value.name] for value in part.inputs]


def _masks(
    prepared: Prepared, part: Part, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What of the tokens the denoiser takes too."""
    if part.name != TEXT_ENCODER:
        return {}
    tokens = token_ids(prepared, part)
    return {name: one.to(inputs[name].dtype) for name, one in tokens.items() if name in inputs}
