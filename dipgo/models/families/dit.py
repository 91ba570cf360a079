"""`DiTTransformer2DModel` as `DiTPipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.models.family import Geometry


class DiTFamily:
    """State f32[B, C, H, W]; conditioning `class_labels` i64[rows]."""

    denoisers = "DiTTransformer2DModel"
    default_blocks = ("transformer_blocks.*",)

    def fits(self, denoiser: Any) -> bool:
        """By its class."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size`: its position embedding is made for that size."""
        size = denoiser.config.sample_size
        return (geometry.batch, denoiser.config.in_channels, size, size)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Class labels; the unconditional rows carry the label `num_embeds_ada_norm`."""
        return {"class_labels": torch.zeros(geometry.rows, dtype=torch.int64)}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The predicted noise; where sigma is learned too, its channels come after and are cut."""
        prediction: torch.Tensor = denoiser(
            latents, timestep.expand(latents.shape[0]), **conditioning, return_dict=False
        )[0]
        return prediction[:, : denoiser.config.in_channels]
