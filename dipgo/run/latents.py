"""Draws the random inputs of a plan (noise, VAE samples) in the order diffusers draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, described, setting
from dipgo.common.given_numbers import array_of
from dipgo.common.torch_noise import PictureNoise
from dipgo.engines.runner import Part, Runner
from dipgo.run.extra_inputs import Given
from dipgo.run.pictures import ENCODER, FRAME_ENCODER, Pictures, encode_masked, encode_picture
from dipgo.run.video import video_inputs


@dataclass(frozen=True, slots=True)
class Drawn:
    """The drawn inputs: `noise` for `latents` and the scheduler, `made` of pictures."""

    noise: Mapping[str, NDArray[np.float32]]
    made: Mapping[str, Given]


def draw_inputs(
    runner: Runner,
    encoders: Mapping[str, Part],
    pictures: Pictures,
    inputs: Mapping[str, Given],
    latents: NDArray[np.float32] | None,
    seeds: Any,
    count: int,
) -> Drawn:
    """Draws the inputs of `count` pictures, in diffusers' order.

    First comes the noise on the picture that a video begins with, or the latents of the picture
    that a trajectory starts from; then the initial noise, the latents of a picture with a mask, and
    the scheduler's draws.

    Args:
        runner: The runner of the export.
        encoders: The export's picture encoders, by name.
        pictures: The pictures of the call.
        inputs: The user's further inputs, which are not made of pictures.
        latents: f32[count, *shape] in place of the initial noise, which is then not drawn; or None.
        seeds: The seed or `torch.Generator` of all pictures, or a list with one for each.
        count: The number of pictures.

    Raises:
        DipgoError: A picture, the latents or the seeds do not fit the export or the call.
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
    # The last draws of some schedulers go into no step: a generator has to move on all the same.
    draws = noise.draw_those((count, *shape), set(places.values()), sampler.noise_draws)
    drawn = {name: draws[index] for name, index in places.items()}
    return Drawn({"latents": initial, **drawn}, made)


def noise_of(seeds: Any, count: int) -> PictureNoise:
    """Returns the noise for `count` pictures.

    Raises:
        DipgoError: There are several seeds, but not one for each picture.
    """
    if isinstance(seeds, list) and len(seeds) != count:
        raise DipgoError(
            setting("seed"),
            found=f"{len(seeds)} seeds",
            expected=f"one, or as many as pictures: {count}",
            remedy="give one for each picture",
        )
    return PictureNoise(seeds)


def draw_latents(
    noise: PictureNoise, count: int, shape: tuple[int, ...], packed: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Draws f32[count, *shape] of unit variance; `packed` latents as `FluxPipeline` draws them."""
    if packed is None:
        return noise.draw((count, *shape))
    unpacked = (shape[-1] // 4, 2 * packed[0], 2 * packed[1])
    return _pack(noise.draw((count, *unpacked)), *packed)


def _pack(noise: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Turns f32[N, C, 2 rows, 2 columns] into f32[N, rows * columns, 4 C].

    Source:
        `FluxPipeline._pack_latents`.
    """
    count, channels = noise.shape[:2]
    tiles = noise.reshape(count, channels, rows, 2, columns, 2).transpose(0, 2, 4, 1, 3, 5)
    return tiles.reshape(count, rows * columns, 4 * channels)


def check_latents(latents: Any, count: int | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns the latents as an array f32[count, *shape]; a `count` of None is any above 0.

    Raises:
        DipgoError: They are not `count` latents of this shape, in float32.
    """
    array = array_of(latents)
    if count is None:
        count = max(1, len(array) if array is not None and array.ndim else 1)
    if array is None or array.shape != (count, *shape) or array.dtype != np.float32:
        raise DipgoError(
            "latents",
            found=described(latents) if array is None else f"{array.dtype}{list(array.shape)}",
            expected=f"float32{[count, *shape]}",
            remedy="convert them, or export for this size",
        )
    return array
