"""What Stable Video Diffusion makes of the picture that a video begins with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLIP_SIDE = 224
"""Pixels of a side of what CLIP sees, whatever its configuration says.

Source: `StableVideoDiffusionPipeline._encode_image`."""


def takes_frames(pipeline: Any) -> bool:
    """Whether it has a CLIP that takes what diffusers makes of a picture; else it takes none."""
    clip = getattr(pipeline, "image_encoder", None)
    return clip is not None and bool(clip.config.image_size == CLIP_SIDE)


class FrameEncoder(nn.Module):
    """A picture f32[B, 3, H, W] in [-1, 1] to CLIP's embedding f32[B, width].

    Resizing is linear, along one axis after the other: a matrix each, made when exporting.
    """

    wrapped = "image_encoder"
    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, image_encoder: Any, extractor: Any, height: int, width: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.register_buffer("rows", resizing(height))
        self.register_buffer("columns", resizing(width))
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(extractor, f"image_{name}"))
            self.register_buffer(name, numbers.reshape(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Resizes, normalises and embeds."""
        resized = self.rows @ image @ self.columns.T
        seen = ((resized + 1) / 2 - self.mean) / self.std
        embedding: Tensor = self.image_encoder(pixel_values=seen).image_embeds
        return embedding


class FrameVaeEncoder(nn.Module):
    """A picture f32[B, 3, H, W] in [-1, 1] to the mode of its latents f32[B, C, h, w], unscaled."""

    wrapped = "vae"

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        """As `StableVideoDiffusionPipeline._encode_vae_image`."""
        mode: Tensor = self.vae.encode(image, return_dict=False)[0].mode()
        return mode


def resizing(size: int) -> Tensor:
    """f32[CLIP_SIDE, size]: a blur against aliasing, then bicubic interpolation to the corners.

    Source: `_resize_with_antialiasing` in diffusers' pipeline, after scikit-image.
    """
    sigma = max((size / CLIP_SIDE - 1.0) / 2.0, 0.001)
    taps = int(max(4.0 * sigma, 3)) | 1
    at = torch.arange(taps, dtype=torch.float32) - taps // 2
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    points = torch.eye(size).reshape(size, 1, size)
    padded = nn.functional.pad(points, (taps // 2, taps // 2), mode="reflect")
    blurred = nn.functional.conv1d(padded, (kernel / kernel.sum()).reshape(1, 1, -1))
    resized = nn.functional.interpolate(
        blurred.reshape(1, size, size, 1), (CLIP_SIDE, 1), mode="bicubic", align_corners=True
    )
    return resized.reshape(size, CLIP_SIDE).T.contiguous()
