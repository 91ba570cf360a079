"""A picture to start from becomes the first state, as diffusers' image-to-image pipelines do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.export_dir import ExportDirectory
from dipgo.engines.parts import Part
from dipgo.errors import DipgoError
from dipgo.noise import PictureNoise

ENCODER, PICTURE, POSTERIOR = "vae_encoder", "image", "posterior"


def check_image(export: ExportDirectory, image: Any) -> None:
    """Raises DipgoError for a picture that would be ignored, for none where one is needed, and
    where the export cannot encode it.
    """
    wanted = export.manifest.sampler.strength is not None
    if wanted != (image is not None):
        raise DipgoError(
            "image",
            found="none for an export that starts from one" if wanted else "a picture",
            expected="a picture" if wanted else "none: the export starts from noise",
            remedy="give image= (--from-image)"
            if wanted
            else "leave it out, or export with --strength",
        )
    if wanted and ENCODER not in export.manifest.parts:
        raise DipgoError(
            str(export.path),
            found=f"an export of {export.manifest.model.source} without a VAE encoder",
            expected="an export of a pipeline with a VAE",
            remedy="export a pipeline, or run the plan alone with dipgo.engines.load",
        )


def encode_picture(
    encoder: Part, image: Any, count: int, noise: PictureNoise
) -> NDArray[np.float32]:
    """Latents f32[count, C, h, w] of one picture for all, or of `count` pictures.

    A picture is PIL's, or f32[3, H, W] in [-1, 1]; several are a list or f32[count, 3, H, W].
    The VAE's posterior is sampled by `noise`: for each picture once, but with a seed for each of
    `count` for each of these, as diffusers does it. Raises DipgoError.
    """
    pixels = _pixels(image, encoder.inputs[PICTURE].shape[1:], count)
    posterior = _encode(encoder, pixels)
    if noise.one_a_picture:
        posterior = np.broadcast_to(posterior, (count, *posterior.shape[1:]))
    mean, deviation = np.split(posterior, 2, axis=1)
    latents = mean + deviation * noise.draw(mean.shape)
    return np.broadcast_to(latents, (count, *latents.shape[1:]))


def _encode(encoder: Part, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and deviation f32[N, 2C, h, w] of N pictures, in batches of the export's."""
    size = encoder.inputs[PICTURE].shape[0]
    padded = np.concatenate([pixels, pixels[-1:].repeat(-len(pixels) % size, axis=0)])
    encoded = [
        encoder({PICTURE: padded[start : start + size]})[POSTERIOR]
        for start in range(0, len(padded), size)
    ]
    return np.concatenate(encoded)[: len(pixels)]


def _pixels(image: Any, shape: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """f32[1 or count, 3, H, W] in [-1, 1]."""
    several = isinstance(image, list | tuple) or getattr(image, "ndim", 0) > len(shape)
    pictures: Sequence[Any] = image if several else [image]
    if len(pictures) not in (1, count):
        raise DipgoError(
            "image",
            found=f"{len(pictures)} pictures",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return np.stack([_picture(one, shape) for one in pictures])


def _picture(image: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if not isinstance(image, np.ndarray):
        return _from_pil(image, shape)
    if image.shape != shape or not (np.abs(image) <= 1).all():
        raise DipgoError(
            "image",
            found=f"numbers of shape {list(image.shape)}, or outside [-1, 1]",
            expected=f"f32{list(shape)} in [-1, 1]",
            remedy="resize and scale it, or export for this size",
        )
    return image.astype(np.float32)


def _from_pil(image: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    _, height, width = shape
    if not hasattr(image, "convert") or image.size != (width, height):
        found = f"{image.size[0]} x {image.size[1]} pixels" if hasattr(image, "size") else "none"
        raise DipgoError(
            "image",
            found=found,
            expected=f"a PIL picture of {width} x {height} pixels, or an array",
            remedy="resize it, or export for this size",
        )
    one = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    pixels: NDArray[np.float32] = np.float32(2) * one.transpose(2, 0, 1) - np.float32(1)
    return pixels
