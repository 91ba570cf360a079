"""`SD3Transformer2DModel` as `StableDiffusion3Pipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.errors import DipgoError
from dipgo.models.family import Geometry


class SD3Family:
    """State f32[B, C, H, W]; conditioning as the pipeline gives it.

    `encoder_hidden_states` f32[rows, tokens, joint width]: CLIP's tokens, then T5's;
    `pooled_projections` f32[rows, pooled width] of the two CLIPs (Esser et al. 2024, section 4).
    """

    denoisers = "SD3Transformer2DModel"
    default_blocks = ("transformer_blocks.*",)
    takes_guidance = True

    def fits(self, denoiser: Any) -> bool:
        """By its class."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size` unless pixels are asked for. Raises DipgoError."""
        config = denoiser.config
        asked = {"height": geometry.height, "width": geometry.width}
        for name, pixels in asked.items():
            _check_size(name, pixels, scale * config.patch_size, config.pos_embed_max_size)
        height, width = (pixels // scale or config.sample_size for pixels in asked.values())
        return (geometry.batch, config.in_channels, height, width)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Hidden states and the pooled text."""
        rows, config = geometry.rows, denoiser.config
        hidden = torch.zeros(rows, geometry.tokens, config.joint_attention_dim)
        return {
            "encoder_hidden_states": hidden,
            "pooled_projections": torch.zeros(rows, config.pooled_projection_dim),
        }

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The predicted velocity f32[rows, C, H, W]."""
        prediction: torch.Tensor = denoiser(
            hidden_states=latents,
            timestep=timestep.expand(latents.shape[0]),
            **conditioning,
            return_dict=False,
        )[0]
        return prediction


def _check_size(name: str, pixels: int, patch: int, most: int) -> None:
    """`patch` is the pixels of one patch, `most` the patches that positions are known of."""
    if pixels % patch or pixels > patch * most:
        raise DipgoError(
            f"--{name}",
            found=str(pixels),
            expected=f"a multiple of {patch}, the pixels of one patch, and at most {patch * most}",
            remedy=f"use {min(max(1, round(pixels / patch)), most) * patch}",
        )
