"""The trial: runs once what is about to be exported, to see what narrow numbers cost it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dipgo.arithmetic import Exact
from dipgo.export.compile import Compiled
from dipgo.export.numerics import Numerics, check_part, check_segments
from dipgo.export.parts import Part, parts_of
from dipgo.export.prepare import Prepared, Progress
from dipgo.noise import initial_noise
from dipgo.precision import FP32, Precision
from dipgo.samplers import init_noise_sigma

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
    parts = _parts(prepared, compiled, precision)
    if not check or precision == FP32:
        return parts, {}
    with progress(f"check {precision.name} against fp32, {len(compiled.plan.steps)} steps"):
        inputs = trial_inputs(prepared, compiled, parts)
        figures, latents = check_segments(compiled.plan, compiled.traced, inputs)
    pictures = {"vae_decoder": latents}
    for index, part in enumerate(parts):
        with progress(f"check the {part.name.replace('_', ' ')} in {precision.name}"):
            given = pictures.get(part.name)
            if given is None:
                given = token_ids(prepared.source.pipeline, part)
            found, will_do = check_part(part, given)
        if will_do:
            figures[part.name] = found
        else:
            parts[index] = _parts(prepared, compiled, FP32)[index]
    return parts, figures


def parts_like(chosen: Sequence[Part], prepared: Prepared, compiled: Compiled) -> list[Part]:
    """The parts for another size, in the precisions that were chosen."""
    of = {one: _parts(prepared, compiled, one) for one in {part.precision for part in chosen}}
    return [of[part.precision][index] for index, part in enumerate(chosen)]


def _parts(prepared: Prepared, compiled: Compiled, precision: Precision) -> list[Part]:
    if prepared.source.pipeline is None:
        return []
    source, geometry = prepared.source, prepared.geometry
    state = next(value for value in compiled.plan.inputs if value.name == compiled.plan.state)
    latents = torch.zeros(state.type.shape)
    conditioning = source.family.conditioning(source.denoiser, geometry)
    return list(parts_of(source.pipeline, geometry, latents, conditioning, precision))


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
    inputs[plan.state] = state * init_noise_sigma(compiled.scheduler, plan.num_inference_steps)
    if "guidance_scale" in inputs:
        inputs["guidance_scale"] = torch.tensor(GUIDANCE_SCALE)
    for part in parts:
        if part.output.name in inputs:
            (hidden,) = Exact(part.exact).run(token_ids(prepared.source.pipeline, part))
            inputs[part.output.name] = hidden
    return inputs


def token_ids(pipeline: Any, part: Part) -> torch.Tensor:
    """PROMPT, after an empty one for each unconditional row, as the text encoder takes them."""
    rows, length = part.example.shape
    texts = ([""] * (rows // 2) + [PROMPT] * rows)[:rows]
    tokens = pipeline.tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: torch.Tensor = tokens.input_ids
    return ids
