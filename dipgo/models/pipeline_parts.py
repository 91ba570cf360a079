"""What stands around the denoiser in a pipeline, as modules of one input and one output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class TextEncoder(nn.Module):
    """Token ids i64[rows, tokens] to hidden states f32[rows, tokens, width]."""

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The last hidden state, as `StableDiffusionPipeline.encode_prompt` takes it."""
        hidden: torch.Tensor = self.encoder(input_ids)[0]
        return hidden


class VaeDecoder(nn.Module):
    """Latents f32[B, C, h, w] to a picture f32[B, 3, H, W] in [-1, 1]."""

    wrapped = "vae"

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = vae.config.scaling_factor
        self.shift = getattr(vae.config, "shift_factor", None) or 0.0

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Undoes the latents' scaling, as diffusers' pipelines do, and decodes."""
        picture: torch.Tensor = self.vae.decode(
            latents / self.scale + self.shift, return_dict=False
        )[0]
        return picture


class VideoVaeDecoder(VaeDecoder):
    """Latents f32[B, F, C, h, w] to pictures f32[B, F, 3, H, W] in [-1, 1], all frames at once.

    Source: `StableVideoDiffusionPipeline.decode_latents`, whose decoder sees F frames together.
    """

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Undoes the latents' scaling and decodes."""
        batch, frames = latents.shape[:2]
        pictures: torch.Tensor = self.vae.decode(
            latents.flatten(0, 1) / self.scale, num_frames=frames, return_dict=False
        )[0]
        return pictures.unflatten(0, (batch, frames))
