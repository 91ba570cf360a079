"""`UNet2DModel` as `DDPMPipeline` and `DDIMPipeline` call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.models.family import Geometry

CLASS = "UNet2DModel"

CLASS_INPUTS = ("class_embed_type", "num_class_embeds")
"""Options that make it take class labels."""


def class_inputs(denoiser: Any) -> dict[str, Any]:
    """Those of CLASS_INPUTS that are set, with their values."""
    found = {option: denoiser.config.get(option) for option in CLASS_INPUTS}
    return {option: value for option, value in found.items() if value is not None}


class UnconditionalFamily:
    """State f32[B, C, H, W], often the picture itself; no conditioning, and so no guidance."""

    denoisers = f"{CLASS} without classes"
    default_blocks = ("down_blocks.*", "mid_block", "up_blocks.*")
    guided = False

    def fits(self, denoiser: Any) -> bool:
        """By its class, where it takes no class labels."""
        return type(denoiser).__name__ == CLASS and not class_inputs(denoiser)

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size` unless pixels are asked for."""
        size = denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        height = geometry.height // scale or height
        width = geometry.width // scale or width
        return (geometry.batch, denoiser.config.in_channels, height, width)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The U-Net's sample f32[B, C, H, W]."""
        prediction: torch.Tensor = denoiser(latents, timestep, return_dict=False)[0]
        return prediction
