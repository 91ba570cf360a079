"""Checks sizes and cuts a learned sigma off, for denoisers that cut latents into patches."""

from __future__ import annotations

from torch import Tensor

from dipgo.common.errors import DipgoError, setting
from dipgo.models.family import Geometry


def check_patches(geometry: Geometry, latents: int, words: str, most: int | None = None) -> None:
    """Checks that height and width are whole patches, at most `most` of them.

    Args:
        geometry: Its height and width are in pixels; 0, the model's own size, always passes.
        latents: Latents on each side of a patch.
        words: The patch's name in the error.
        most: Patches on each side that the model has positions for; None for any number.

    Raises:
        DipgoError: A size is not a multiple of the patch, or too large.
    """
    patch = geometry.pixels_per_latent * latents
    limit = "" if most is None else f", and at most {patch * most}"
    for name, pixels in (("height", geometry.height), ("width", geometry.width)):
        if pixels % patch or (most is not None and pixels > patch * most):
            nearest = max(1, round(pixels / patch))
            raise DipgoError(
                setting(name),
                found=str(pixels),
                expected=f"a multiple of {patch}, the pixels of {words}{limit}",
                remedy=f"use {(nearest if most is None else min(nearest, most)) * patch}",
            )


def without_sigma(prediction: Tensor, channels: int) -> Tensor:
    """Returns the predicted noise, without as many channels more of a learned sigma.

    Source: `DiTPipeline.__call__`, which keeps any other number of channels.
    """
    predicted = prediction.shape[1]
    return prediction[:, :channels] if predicted in (channels, 2 * channels) else prediction
