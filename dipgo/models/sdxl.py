"""`UNet2DConditionModel` as Stable Diffusion XL calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.models.family import Geometry
from dipgo.models.unet import CLASS, UNetFamily, more_inputs

TIME_IDS = 6
"""Original height and width, top and left of the crop, target height and width, in pixels
(Podell et al. 2023, section 2.2)."""
TIME_IDS_NAME = "time_ids"
ADDED = ("text_embeds", TIME_IDS_NAME)
"""What the U-Net takes as `added_cond_kwargs`."""


def time_ids(height: int, width: int) -> list[float]:
    """A row for pictures that are neither scaled nor cropped, as the pipeline's defaults are."""
    return [float(number) for number in (height, width, 0, 0, height, width)]


class SDXLFamily(UNetFamily):
    """State f32[B, C, H, W]; conditioning as `StableDiffusionXLPipeline` gives it.

    `encoder_hidden_states` f32[rows, tokens, width], `text_embeds` f32[rows, pooled width],
    `time_ids` f32[rows, 6].
    """

    denoisers = f"{CLASS} of Stable Diffusion XL (addition_embed_type text_time)"

    def fits(self, denoiser: Any) -> bool:
        """A U-Net whose time embedding is added to by a pooled text and by sizes."""
        only = {"addition_embed_type": "text_time"}
        return type(denoiser).__name__ == CLASS and more_inputs(denoiser) == only

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Hidden states, the pooled text, and the sizes."""
        config = denoiser.config
        ids_width = TIME_IDS * config.addition_time_embed_dim
        pooled_width = config.projection_class_embeddings_input_dim - ids_width
        return {
            **super().conditioning(denoiser, geometry),
            "text_embeds": torch.zeros(geometry.rows, pooled_width),
            "time_ids": torch.zeros(geometry.rows, TIME_IDS),
        }

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The U-Net's sample f32[rows, C, H, W]."""
        prediction: torch.Tensor = denoiser(
            latents,
            timestep,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            added_cond_kwargs={name: conditioning[name] for name in ADDED},
            return_dict=False,
        )[0]
        return prediction
