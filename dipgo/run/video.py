"""Turns the picture that a video begins with into inputs of Stable Video Diffusion's U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.torch_noise import PictureNoise
from dipgo.engines.runner import Part
from dipgo.ir.types import TensorType
from dipgo.run.extra_inputs import Given
from dipgo.run.pictures import ENCODER, FRAME_ENCODER, PICTURE, encode, pixels_of

HIDDEN_STATES, IMAGE_LATENTS, TIME_IDS = "encoder_hidden_states", "image_latents", "added_time_ids"

MIN_SCALE = "min_guidance_scale"
"""The guidance scale of the first frame, an input of exports with guidance."""

DEFAULTS: Mapping[str, Given] = {
    TIME_IDS: np.array([[6.0, 127.0, 0.02]], np.float32),
    MIN_SCALE: 1.0,
}
"""The frames a second less one, motion bucket, and noise on the picture; the first frame's scale.

Source: the defaults of `StableVideoDiffusionPipeline.__call__`.
"""


def video_inputs(
    wanted: Mapping[str, TensorType],
    inputs: Mapping[str, Given],
    encoders: Mapping[str, Part],
    image: Any,
    count: int,
    noise: PictureNoise,
) -> dict[str, Given]:
    """Makes inputs of the plan from one picture for all of `count` videos, or one for each.

    The unconditional rows are zeros.

    Args:
        wanted: The types of the plan's inputs.
        inputs: The user's inputs, which are not made.
        encoders: The export's picture encoders, by name.
        image: As for `encode_picture`. Its latents are those of the picture with noise on it, in
            the amount that the last of the time ids says.
        count: The number of videos.
        noise: The noise to draw from.

    Raises:
        DipgoError: The pictures are of another number or size.
    """
    pixels = pixels_of(image, encoders[ENCODER].inputs[PICTURE].shape[1:], count)
    made = {key: value for key, value in DEFAULTS.items() if key in wanted and key not in inputs}
    amounts = _noise_amounts(inputs.get(TIME_IDS, DEFAULTS[TIME_IDS]), count)
    noisy = pixels + amounts * noise.draw(pixels.shape)
    halves = _halves if MIN_SCALE in wanted else _conditional
    if HIDDEN_STATES not in inputs:
        made[HIDDEN_STATES] = halves(encode(encoders[FRAME_ENCODER], pixels)[:, np.newaxis])
    if IMAGE_LATENTS not in inputs:
        latents, frames = encode(encoders[ENCODER], noisy), wanted[IMAGE_LATENTS].shape[1]
        made[IMAGE_LATENTS] = halves(latents[:, np.newaxis].repeat(frames, axis=1))
    return made


def _noise_amounts(ids: Given, count: int) -> NDArray[np.float32]:
    """Returns f32[1 or count, 1, 1, 1]: the last time id of each video's conditional half.

    Time ids of a wrong shape are refused with the other inputs, where nothing is made of them.
    """
    numbers = np.asarray(ids[-1] if isinstance(ids, tuple) else ids, np.float32)
    amounts = numbers.reshape(-1)[2::3][-count:]
    if len(amounts) != count:
        amounts = np.append(np.float32(0), amounts)[-1:]
    return amounts.reshape(-1, 1, 1, 1)


def _halves(conditional: NDArray[np.float32]) -> Given:
    return (np.zeros_like(conditional), conditional)


def _conditional(conditional: NDArray[np.float32]) -> Given:
    return conditional
