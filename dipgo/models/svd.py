"""`UNetSpatioTemporalConditionModel` as `StableVideoDiffusionPipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from dipgo.models.family import Geometry

TIME_IDS = 3
"""Pictures a second less one, the motion's bucket, the strength of the noise on the picture."""
IMAGE_LATENTS = "image_latents"
MIN_SCALE = "min_guidance_scale"


@dataclass(frozen=True)
class SVDFamily:
    """State f32[B, F, C, h, w], F frames; conditioning as the pipeline gives it.

    `encoder_hidden_states` f32[rows, 1, width] of the picture, `added_time_ids` f32[rows, 3], and
    `image_latents` f32[rows, F, C, h, w], which go in beside the state's channels. With guidance
    the scale goes from `min_guidance_scale` f32[] in the first frame to `guidance_scale`, which is
    the pipeline's `max_guidance_scale`, in the last. `size` is height and width in latent pixels,
    if not those of the model's `sample_size`.
    """

    size: tuple[int, int] | None = None

    denoisers = "UNetSpatioTemporalConditionModel"
    default_blocks = ("down_blocks.*", "mid_block", "up_blocks.*")

    def fits(self, denoiser: Any) -> bool:
        """By its class."""
        return type(denoiser).__name__ == self.denoisers

    def at_size(self, denoiser: Any, geometry: Geometry, scale: int) -> SVDFamily:
        """For the pixels that are asked for."""
        height, width = self._size(denoiser)
        return replace(
            self, size=(geometry.height // scale or height, geometry.width // scale or width)
        )

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size`, which is not the pipeline's, unless pixels are asked for."""
        return (geometry.batch, *self.at_size(denoiser, geometry, scale)._frames(denoiser))

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """The picture's embedding and latents, the time ids, and with guidance the least scale."""
        rows, width = geometry.rows, denoiser.config.cross_attention_dim
        width = width if isinstance(width, int) else width[0]
        least = {MIN_SCALE: torch.tensor(1.0)} if geometry.guidance else {}
        return {
            "encoder_hidden_states": torch.zeros(rows, 1, width),
            "added_time_ids": torch.zeros(rows, TIME_IDS),
            IMAGE_LATENTS: torch.zeros(rows, *self._frames(denoiser)),
            **least,
        }

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The U-Net's sample f32[rows, F, C, h, w]."""
        prediction: torch.Tensor = denoiser(
            torch.cat([latents, conditioning[IMAGE_LATENTS]], dim=2),
            timestep,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            added_time_ids=conditioning["added_time_ids"],
            return_dict=False,
        )[0]
        return prediction

    def spread_scale(
        self, denoiser: Any, scale: torch.Tensor, conditioning: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """f32[F, 1, 1, 1]: evenly from the least to `scale`."""
        least = conditioning[MIN_SCALE]
        shares = torch.linspace(0.0, 1.0, denoiser.config.num_frames, device=scale.device)
        return (least + shares * (scale - least)).reshape(-1, 1, 1, 1)

    def _size(self, denoiser: Any) -> tuple[int, int]:
        size = self.size or denoiser.config.sample_size
        return (size, size) if isinstance(size, int) else size

    def _frames(self, denoiser: Any) -> tuple[int, ...]:
        config = denoiser.config
        return (config.num_frames, config.out_channels, *self._size(denoiser))
