"""Runs once what is about to be exported, to measure the error of narrow types."""

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
    """Returns the pipeline's other parts, and the figures of segments and parts in narrow types.

    A part for which the narrow type does not suffice stays in fp32. An fp32 export has no figures,
    nor does an export without `check`.

    Args:
        prepared: The model, schedule and sizes.
        compiled: The plan and the graph it was made from.
        check: Whether to run the trial.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The narrow type does not suffice for a segment.
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
    """Returns the figures of segments and parts, and the names of parts that need fp32.

    Args:
        prepared: The model, schedule and sizes.
        compiled: The plan and the graph it was made from.
        parts: The pipeline's other parts, in narrow types.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The narrow type does not suffice for a segment.
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
            arguments = pictures.get(part.name)
            if arguments is None:
                arguments = _inputs_for(prepared, part)
            numerics, suffices = check_part(part, arguments)
        if suffices:
            figures[part.name] = numerics
        else:
            unfit.add(part.name)
    return figures, unfit


def make_parts(prepared: Prepared, compiled: Compiled, precision_of: PrecisionOf) -> list[Part]:
    """Returns the pipeline's other parts; an architecture alone has no parts."""
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
    """Returns inputs of a run: noise of seed 0, and a prompt if there is a text encoder."""
    generator = torch.Generator().manual_seed(0)
    plan = compiled.plan
    inputs: dict[str, torch.Tensor] = {}
    for value in plan.inputs:
        tensor_type = value.type
        inputs[value.name] = (
            torch.randn(tensor_type.shape, generator=generator)
            if tensor_type.dtype == "f32"
            else torch.zeros(tensor_type.shape, dtype=torch.int64)
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
    """Returns the tokens of PROMPT, after an empty prompt for each unconditional row."""
    rows, _ = part.examples[0].shape
    texts = ([""] * (rows // 2) + [PROMPT] * rows)[:rows]
    encoding = prepared.source.at(prepared.geometry).text_encoding
    assert encoding is not None, "a text encoder that is not known"
    return encoding.tokenize(texts)


def _picture(parts: Sequence[Part]) -> torch.Tensor:
    """Returns a picture of random colours in the size of the VAE encoder, or an empty tensor."""
    shapes = [part.examples[0].shape for part in parts if part.name == VAE_ENCODER]
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shapes[0] if shapes else (0,), generator=generator) * 2 - 1


def _inputs_for(prepared: Prepared, part: Part) -> list[torch.Tensor]:
    """Returns the part's inputs in order: tokens, or its examples if it takes no tokens."""
    if part.name != TEXT_ENCODER:
        return list(part.examples)
    tokens = token_ids(prepared, part)
    return [tokens[value.name] for value in part.inputs]


def _masks(
    prepared: Prepared, part: Part, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Returns the tokens that the denoiser takes too, such as masks."""
    if part.name != TEXT_ENCODER:
        return {}
    tokens = token_ids(prepared, part)
    return {
        name: tensor.to(inputs[name].dtype) for name, tensor in tokens.items() if name in inputs
    }
