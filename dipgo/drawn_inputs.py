"""What of a plan's inputs is drawn: noise, and the latents of pictures, in diffusers' order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.parts import Part
from dipgo.engines.runner import Runner
from dipgo.image_input import Pictures, encode_masked, encode_picture
from dipgo.pipeline_arguments import check_latents, draw_latents, noise_of


@dataclass(frozen=True, slots=True)
class Drawn:
    """`noise` is the plan's `latents` and what its scheduler draws; `masked` a mask's inputs."""

    noise: Mapping[str, NDArray[np.float32]]
    masked: Mapping[str, NDArray[np.float32]]


def draw_inputs(
    runner: Runner,
    encoder: Part | None,
    pictures: Pictures,
    latents: NDArray[np.float32] | None,
    seeds: int | list[int],
    count: int,
) -> Drawn:
    """For `count` pictures. `latents` take the place of the initial noise; then it is not drawn.

    As diffusers draws: the latents of a picture that a trajectory starts from, then the initial
    noise, the latents of a picture with a mask, and what the scheduler draws. Raises DipgoError.
    """
    manifest, noise = runner.export.manifest, noise_of(seeds, count)
    shape, sampler = runner.inputs["latents"].shape[1:], manifest.sampler
    packed = manifest.pipeline.packed if manifest.pipeline else None
    start = None
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
    masked: Mapping[str, NDArray[np.float32]] = {}
    if encoder is not None and pictures.mask_image is not None:
        masked = encode_masked(encoder, pictures, count, noise)
    places = {draw.value: draw.index - 1 for draw in runner.export.plan.draws}
    draws = noise.draw_those((count, *shape), set(places.values()))
    drawn = {name: draws[index] for name, index in places.items()}
    return Drawn({"latents": initial, **drawn}, masked)
