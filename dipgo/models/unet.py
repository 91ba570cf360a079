"""`UNet2DConditionModel` as Stable Diffusion 1 and 2 call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.models.family import Geometry

CLASS = "UNet2DConditionModel"
MORE_INPUTS = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Options that make the U-Net take, or diffusers' pipelines give it, more than a text."""


def more_inputs(denoiser: Any) -> dict[str, Any]:
    """Those of MORE_INPUTS that are set, with their values."""
    found = {option: denoiser.config.get(option) for option in MORE_INPUTS}
    return {option: value for option, value in found.items() if value is not None}


class UNetFamily:
    """State f32[B, C, H, W]; conditioning `encoder_hidden_states` f32[rows, tokens, width]."""

    denoisers = f"{CLASS} of Stable Diffusion 1 and 2"
    default_blocks = ("down_blocks.*", "mid_block", "up_blocks.*")
    takes_guidance = True

    def fits(self, denoiser: Any) -> bool:
        """A U-Net that is conditioned on a text alone."""
        return type(denoiser).__name__ == CLASS and not more_inputs(denoiser)

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size` unless pixels are asked for."""
        size = denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        height = geometry.height // scale or height
        width = geometry.width // scale or width
        return (geometry.batch, denoiser.config.in_channels, height, width)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """The text encoder's hidden states."""
        width = denoiser.config.cross_attention_dim
        width = width if isinstance(width, int) else width[0]
        return {"encoder_hidden_states": torch.zeros(geometry.rows, geometry.tokens, width)}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The U-Net's sample f32[rows, C, H, W]."""
        prediction: torch.Tensor = denoiser(latents, timestep, **conditioning, return_dict=False)[0]
        return prediction
