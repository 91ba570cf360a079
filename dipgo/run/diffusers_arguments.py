"""Judges arguments that diffusers' pipelines take, and that an export has decided already.

An argument that says what the export is anyway, or that is None, is taken. Anything else is refused
in one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dipgo.common.arguments import unknown_name
from dipgo.common.errors import DipgoError, described, setting
from dipgo.common.given_numbers import array_of
from dipgo.engines.picture_size import picture_size
from dipgo.engines.runner import Runner
from dipgo.run.decoder import VIDEO_AXES


@dataclass(frozen=True, slots=True)
class Fixed:
    """An argument of diffusers' pipelines whose value is that of the export.

    `own` returns that value, or None if there is none; `remedy` says how to get another.
    """

    own: Callable[[Runner], Any]
    remedy: str


def _frames(runner: Runner) -> int | None:
    shape = runner.inputs["latents"].shape
    return shape[1] if len(shape) == VIDEO_AXES else None


AGAIN = "leave it out, or export again with "

FIXED: Mapping[str, Fixed] = {
    "num_inference_steps": Fixed(
        lambda runner: runner.export.plan.num_inference_steps,
        f"{AGAIN}a SubNet of so many steps, or dense with {setting('steps')}",
    ),
    "height": Fixed(
        lambda runner: picture_size(runner.export.manifest)[0],
        f"{AGAIN}{setting('height')} or {setting('also_sizes')}; load a further size with "
        f"{setting('size')}",
    ),
    "width": Fixed(
        lambda runner: picture_size(runner.export.manifest)[1],
        f"{AGAIN}{setting('width')} or {setting('also_sizes')}; load a further size with "
        f"{setting('size')}",
    ),
    "num_frames": Fixed(_frames, "leave it out: the frames are those of the export"),
    "strength": Fixed(
        lambda runner: runner.export.manifest.sampler.strength, f"{AGAIN}{setting('strength')}"
    ),
    "eta": Fixed(lambda runner: runner.export.manifest.sampler.eta, f"{AGAIN}{setting('eta')}"),
    "timesteps": Fixed(
        lambda runner: [step.timestep for step in runner.export.plan.steps],
        f"{AGAIN}a SubNet that has them",
    ),
    "sigmas": Fixed(lambda runner: None, f"{AGAIN}another {setting('scheduler')}"),
    "guidance_rescale": Fixed(lambda runner: 0.0, "leave it out: a plan has no such step"),
}
"""Arguments that the plan has decided."""

EMBEDS = 'give inputs={"image_embeds": …}'
TIME_IDS = 'give inputs={"added_time_ids": …}'
LORAS = "leave it out, or give the export LoRAs: python -m dipgo.refit OUT --model M --lora FILE"
ONE_PROMPT = "leave it out: every text encoder of the export gets the prompt"
ON_SIZE = "leave it out: it is that of the exported size"
ON_STEPS = "leave it out: the steps that run are those of the export"

ELSEWHERE: Mapping[str, str] = {
    "num_videos_per_prompt": f"give {setting('num_images_per_prompt')}",
    "class_labels": f"give them as {setting('prompt')}",
    "control_image": 'give inputs={"controlnet_cond": …}',
    "controlnet_conditioning_scale": 'give inputs={"conditioning_scale": …}',
    "control_guidance_start": ON_STEPS,
    "control_guidance_end": ON_STEPS,
    "denoising_start": ON_STEPS,
    "denoising_end": ON_STEPS,
    "ip_adapter_image": EMBEDS,
    "ip_adapter_image_embeds": EMBEDS,
    "fps": TIME_IDS,
    "motion_bucket_id": TIME_IDS,
    "noise_aug_strength": TIME_IDS,
    "min_guidance_scale": 'give inputs={"min_guidance_scale": …}',
    "max_guidance_scale": f"give {setting('guidance_scale')}",
    "true_cfg_scale": f"leave it out, or export again with {setting('guidance')}",
    "cross_attention_kwargs": LORAS,
    "joint_attention_kwargs": LORAS,
    "attention_kwargs": LORAS,
    "prompt_2": ONE_PROMPT,
    "prompt_3": ONE_PROMPT,
    "negative_prompt_2": ONE_PROMPT,
    "negative_prompt_3": ONE_PROMPT,
    "original_size": ON_SIZE,
    "target_size": ON_SIZE,
    "crops_coords_top_left": ON_SIZE,
    "negative_original_size": ON_SIZE,
    "negative_target_size": ON_SIZE,
    "negative_crops_coords_top_left": ON_SIZE,
    "clip_skip": "leave it out: the text encoder of the export ends with its own layer",
    "max_sequence_length": "leave it out: the length of texts is that of the export",
    "callback": f"give {setting('callback_on_step_end')}",
    "callback_steps": f"give {setting('callback_on_step_end')}, which is called at every step",
    "callback_on_step_end_tensor_inputs": "leave it out: a callback gets no tensors",
    "decode_chunk_size": "leave it out: all frames are decoded at once",
}
"""Arguments that an export takes in another form, or has no use for, with what to do."""


def remedies_by_flag() -> dict[str, str]:
    """Returns what to do about these arguments as options of a command, by flag."""
    remedies = {name: fixed.remedy for name, fixed in FIXED.items()} | dict(ELSEWHERE)
    remedies["steps"] = FIXED["num_inference_steps"].remedy
    return {f"--{name.replace('_', '-')}": remedy for name, remedy in remedies.items()}


def judge_arguments(given: Mapping[str, Any], runner: Runner, taken: list[str]) -> None:
    """Checks arguments that only diffusers' pipelines have.

    Args:
        given: The arguments by name.
        runner: The runner of the export.
        taken: The names of the arguments that dipgo's pipeline has.

    Raises:
        DipgoError: One is not what the export has, or is not known.
    """
    for name, value in given.items():
        if name not in FIXED and name not in ELSEWHERE:
            raise unknown_name(name, taken, "Pipeline")
        if value is None:
            continue
        if name in ELSEWHERE:
            raise _fixed(name, value, "nothing: an export is fixed", ELSEWHERE[name])
        own = FIXED[name].own(runner)
        if not _is_same(value, own):
            expected = "none" if own is None else f"{_shown(own)}, as the export has"
            raise _fixed(name, value, expected, FIXED[name].remedy)


def _fixed(name: str, value: Any, expected: str, remedy: str) -> DipgoError:
    return DipgoError(setting(name), found=_shown(value), expected=expected, remedy=remedy)


def _is_same(value: Any, own: Any) -> bool:
    mine, given = array_of(own), array_of(value)
    if mine is None or given is None or given.dtype == np.bool_:
        return False
    return mine.shape == given.shape and bool(np.allclose(mine, given))


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | list | tuple):
        return described(value)
    array = array_of(value)
    if array is None:
        return described(value)
    numbers = [f"{number:g}" for number in array.reshape(-1)[:8]]
    return ", ".join(numbers) + (f", … ({array.size})" if array.size > len(numbers) else "")
