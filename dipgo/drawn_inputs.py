"""What of a plan's inputs is drawn: noise, and the latents of pictures, in diffusers' order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.parts import Part
from dipgo.engines.runner import Runner
from dipgo.further_inputs import Given
from dipgo.image_input import (
    ENCODER,
    FRAME_ENCODER,
    Pictures,
    encode_masked,
    encode_picture,
)
from dipgo.pipeline_arguments import check_latents, draw_latents, noise_of
from dipgo.video_input import video_inputs


@dataclass(frozen=True, slots=True)
class Drawn:
    """`noise` is the plan's `latents` and what its scheduler draws; `made` is made of pictures."""

    noise: Mapping[str, NDArray[np.float32]]
    made: Mapping[str, Given]


def draw_inputs(
    runner: Runner,
    encoders: Mapping[str, Part],
    pictures: Pictures,
    inputs: Mapping[str, Given],
    latents: NDArray[np.float32] | None,
    seeds: int | list[int],
    count: int,
) -> Drawn:
    """For `count` pictures. `latents` take the place of the initial noise; then it is not drawn.

    As diffusers draws: the noise on the picture that a video begins with, or the latents of one
    that a trajectory starts from; then the initial noise, the latents of a picture with a mask, and
    what the scheduler draws. `inputs` are further ones that are given. Raises DipgoError.
    """
    manifest, noise = runner.export.manifest, noise_of(seeds, count)
    shape, sampler = runner.inputs["latents"].shape[1:], manifest.sampler
    packed = manifest.pipeline.packed if manifest.pipeline else None
    encoder, start, made = encoders.get(ENCODER), None, dict[str, Given]()
    if FRAME_ENCODER in encoders and pictures.image is not None:
        wanted = runner.inputs
        made |= video_inputs(wanted, inputs, encoders, pictures.image, count, noise)
    if encoder is not None and sampler.strength is not None:
        start = encode_picture(encoder, pictures, count, noise)
    initial = (
        draw_latents(noise, count, shape, packed)
        if latents is None
        else check_latents(latents, count, shape)
    )
    initial = initial * np.float32(sampler.init_noise_sigma)
    if start is not None:
        initial = np.float32(sampler.image_scale) * start + initial
    if encoder is not None and pictures.mask_image is not None:
        made |= encode_masked(encoder, pictures, count, noise)
    places = {draw.value: draw.index - 1 for draw in runner.export.plan.draws}
    draws = noise.draw_those((count, *shape), set(places.values()))
    drawn = {name: draws[index] for name, index in places.items()}
    return Drawn({"latents": initial, **drawn}, made)
