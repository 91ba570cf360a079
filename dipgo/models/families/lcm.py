"""`UNet2DConditionModel` distilled with its guidance, as the pipelines of LCM call it.

The embedded guidance scale is an input of the U-Net, and there is no unconditional prediction.

Source: Luo et al. 2023, "Latent Consistency Models", section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from dipgo.models.loop import Loop
from dipgo.models.presets import Preset

PIPELINE = "LatentConsistencyModelPipeline"

OPTION, INPUT = "time_cond_proj_dim", "timestep_cond"
"""The option that makes a U-Net take the embedded scale, with its width as value, and the name of
that input."""


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
    # latent-consistency/lcm-sdxl: config.json; the scheduler has the base model's configuration
    "sdxl-lcm": Preset(
        "UNet2DConditionModel",
        {**SDXL, "time_cond_proj_dim": 256},
        "LCMScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "leading"},
    ),
}


class LCMFamily(UNetFamily):
    """LCM: state f32[B, C, H, W], conditioning of `LatentConsistencyModelPipeline`.

    It is `encoder_hidden_states` f32[B, tokens, width], and `timestep_cond`
    f32[B, embedding width], the pipeline's `get_guidance_scale_embedding(guidance_scale - 1)`.
    """

    denoisers = f"{CLASS} of Stable Diffusion 1 and 2 distilled with its guidance ({OPTION})"
    guided = False
    pipelines: tuple[str, ...] = (
        *UNetFamily.pipelines,
        PIPELINE,
        "LatentConsistencyModelImg2ImgPipeline",
    )
    presets = PRESETS
    beside: ClassVar[dict[str, Any]] = {}
    """Further inputs of the U-Net, as `more_inputs` returns them."""

    def fits(self, denoiser: Any) -> bool:
        """Returns whether class and inputs are those that the family is for."""
        if type(denoiser).__name__ != CLASS:
            return False
        inputs = more_inputs(denoiser)
        return inputs.pop(OPTION, None) is not None and inputs == self.beside

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns the inputs of the undistilled U-Net, and the embedded guidance scale."""
        embedded = torch.zeros(geometry.rows, denoiser.config.time_cond_proj_dim)
        return {**super().conditioning(denoiser, geometry), INPUT: embedded}

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the pipeline calls its scheduler.

        Those of LCM spread the steps over the strength and do not scale the U-Net's input; other
        pipelines may have the U-Net too, and an architecture has none.
        """
        loop = super().loop(denoiser, pipeline)
        name = type(pipeline).__name__
        if PIPELINE not in self.pipelines or not name.startswith("LatentConsistencyModel"):
            return loop
        return replace(
            loop,
            pipeline=name,
            timestep_options={"original_inference_steps": None},
            step_options={"eta": None},
            spreads_steps=True,
            reads=("order", "init_noise_sigma"),
        )

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the U-Net's sample f32[B, C, H, W]."""
        rest = {name: tensor for name, tensor in conditioning.items() if name != INPUT}
        distilled = partial(denoiser, timestep_cond=conditioning[INPUT])
        return super().predict(distilled, latents, timestep, rest)


class SDXLLCMFamily(LCMFamily, SDXLFamily):
    """LCM of Stable Diffusion XL, with its `text_embeds` and `time_ids` too."""

    denoisers = f"{CLASS} of Stable Diffusion XL distilled with its guidance ({OPTION})"
    pipelines = SDXLFamily.pipelines
    presets = XL_PRESETS
    beside: ClassVar[dict[str, Any]] = {"addition_embed_type": "text_time"}
