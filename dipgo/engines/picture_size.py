"""Reads the size of the pictures that an export makes off its manifest."""

from __future__ import annotations

from dipgo.ir.manifest.records import Manifest
from dipgo.ir.types import TensorType

DECODER = "vae_decoder"
"""The part that turns latents into pictures."""


def picture_size(manifest: Manifest) -> tuple[int, int]:
    """Returns height and width of what an export makes: in pixels, if it decodes latents."""
    own = _latents(manifest)
    if DECODER in manifest.parts:
        own = TensorType.parse(manifest.parts[DECODER].outputs[0].type)
    return own.shape[-2], own.shape[-1]


def own_sizes(manifest: Manifest) -> tuple[str, ...]:
    """Returns the names of an export's first size, as those of further sizes are written."""
    height, width = picture_size(manifest)
    return (f"{height}x{width}", f"{manifest.batch}x{height}x{width}")


def _latents(manifest: Manifest) -> TensorType:
    return next(TensorType.parse(one.type) for one in manifest.inputs if one.name == "latents")
