"""`UNet2DConditionModel` distilled with its guidance, as the pipelines of LCM call it.

The guidance scale is an input of the U-Net, embedded, and there is no unconditional prediction
(Luo et al. 2023, "Latent Consistency Models", section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch

from dipgo.models.families.sdxl import SDXL, SDXLFamily
from dipgo.models.families.stable_diffusion import (
    CLASS,
    SD15,
    STABLE_DIFFUSION_SCHEDULE,
    UNetFamily,
    more_inputs,
)
from dipgo.models.family import Geometry
from dipgo.models.presets import Preset

OPTION, INPUT = "time_cond_proj_dim", "timestep_cond"
"""The option that makes a U-Net take it, which is its width; and the U-Net's own name of it."""


PRESETS = {
    # SimianLuo/LCM_Dreamshaper_v7: unet/config.json, scheduler/scheduler_config.json
    "lcm-sd15": Preset(
        "UNet2DConditionModel",
        {**SD15, "time_cond_proj_dim": 256},
        "LCMScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "set_alpha_to_one": True, "steps_offset": 0},
    ),
}

XL_PRESETS = {
    # latent-consistency/lcm-sdxl: config.json; the scheduler is made of that of the base model
    "sdxl-lcm": Preset(
        "UNet2DConditionModel",
        {**SDXL, "time_cond_proj_dim": 256},
        "LCMScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "leading"},
    ),
}


class LCMFamily(UNetFamily):
    """State f32[B, C, H, W]; conditioning as `LatentConsistencyModelPipeline` gives it.

    `encoder_hidden_states` f32[B, tokens, width], and `timestep_cond` f32[B, embedding width]:
    the pipeline's `get_guidance_scale_embedding(guidance_scale - 1)`.
    """

    denoisers = f"{CLASS} of Stable Diffusion 1 and 2 distilled with its guidance ({OPTION})"
    guided = False
    pipelines: tuple[str, ...] = (*UNetFamily.pipelines, "LatentConsistencyModelPipeline")
    presets = PRESETS
    beside: ClassVar[dict[str, Any]] = {}
    """What the U-Net takes besides, as `more_inputs` has it."""

    def fits(self, denoiser: Any) -> bool:
        """By its class and what it takes."""
        if type(denoiser).__name__ != CLASS:
            return False
        found = more_inputs(denoiser)
        return found.pop(OPTION, None) is not None and found == self.beside

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """What the U-Net takes undistilled, and the embedded guidance scale."""
        embedded = torch.zeros(geometry.rows, denoiser.config.time_cond_proj_dim)
        return {**super().conditioning(denoiser, geometry), INPUT: embedded}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The U-Net's sample f32[B, C, H, W]."""
        rest = {name: tensor for name, tensor in conditioning.items() if name != INPUT}
        distilled = partial(denoiser, timestep_cond=conditioning[INPUT])
        return super().predict(distilled, latents, timestep, rest)


class SDXLLCMFamily(LCMFamily, SDXLFamily):
    """The same of Stable Diffusion XL, with its `text_embeds` and `time_ids` too."""

    denoisers = f"{CLASS} of Stable Diffusion XL distilled with its guidance ({OPTION})"
    pipelines = SDXLFamily.pipelines
    presets = XL_PRESETS
    beside: ClassVar[dict[str, Any]] = {"addition_embed_type": "text_time"}
