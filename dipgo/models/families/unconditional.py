"""`UNet2DModel` as `DDPMPipeline` and `DDIMPipeline` call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.models.family import Family, Geometry
from dipgo.models.loop import Loop
from dipgo.models.presets import Preset

CLASS = "UNet2DModel"

DDPM = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
"""Options that the U-Nets of `google/ddpm-*` share (Ho et al. 2020, appendix B)."""

DDPM_SCHEDULE = {"beta_schedule": "linear", "clip_sample": False, "variance_type": "fixed_large"}
"""The published schedule, except for `clip_sample`, since clipping is not linear."""

PRESETS = {
    # google/ddpm-cifar10-32: config.json, scheduler_config.json
    "ddpm-cifar10": Preset(
        "UNet2DModel",
        {
            **DDPM,
            "sample_size": 32,
            "block_out_channels": (128, 256, 256, 256),
            "down_block_types": (
                "DownBlock2D",
                "AttnDownBlock2D",
                "DownBlock2D",
                "DownBlock2D",
            ),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        },
        "DDPMScheduler",
        DDPM_SCHEDULE,
        tokens=0,
        pixels_per_latent=1,
    ),
    # google/ddpm-celebahq-256: config.json, scheduler_config.json
    "ddpm-celebahq-256": Preset(
        "UNet2DModel",
        {
            **DDPM,
            "sample_size": 256,
            "block_out_channels": (128, 128, 256, 256, 512, 512),
            "down_block_types": (
                *("DownBlock2D",) * 4,
                "AttnDownBlock2D",
                "DownBlock2D",
            ),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
        },
        "DDPMScheduler",
        DDPM_SCHEDULE,
        tokens=0,
        pixels_per_latent=1,
    ),
}

CLASS_INPUTS = ("class_embed_type", "num_class_embeds")
"""Options that make the U-Net take class labels."""


def class_inputs(denoiser: Any) -> dict[str, Any]:
    """Returns the options of CLASS_INPUTS that are set, with their values."""
    options = {option: denoiser.config.get(option) for option in CLASS_INPUTS}
    return {option: value for option, value in options.items() if value is not None}


def is_latent(pipeline: Any) -> bool:
    """Returns whether it is an `LDMPipeline`, whose state is latents."""
    return any(parent.__name__ == "LDMPipeline" for parent in type(pipeline).__mro__)


class UnconditionalFamily(Family):
    """Unconditional U-Nets: state f32[B, C, H, W], no conditioning and so no guidance.

    The state is often the picture itself.
    """

    denoisers = f"{CLASS} without classes"
    default_blocks = ("down_blocks.*", "mid_block", "up_blocks.*")
    guided = False
    pipelines = ("DDPMPipeline", "DDIMPipeline", "LDMPipeline")
    presets = PRESETS
    vae_options = ()

    def fits(self, denoiser: Any) -> bool:
        """Returns whether class and inputs are those that the family is for: no class labels."""
        return type(denoiser).__name__ == CLASS and not class_inputs(denoiser)

    def unserved_options(self, denoiser: Any) -> dict[str, Any]:
        """Returns the options that make the U-Net take class labels."""
        return class_inputs(denoiser) if type(denoiser).__name__ == CLASS else {}

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape at the geometry's size, by default the model's `sample_size`."""
        config = denoiser.config
        return (geometry.batch, config.in_channels, *geometry.in_latents(config.sample_size))

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the pipeline calls its scheduler.

        `DDPMPipeline` and `DDIMPipeline` scale neither noise nor input; `LDMPipeline` does as
        Stable Diffusion's, but hands no generator on.
        """
        if is_latent(pipeline):
            return Loop("LDMPipeline", reads=("init_noise_sigma", "scale_model_input"))
        return Loop(
            "DDPMPipeline",
            step_options={},
            needs_generator=pipeline is not None,
            reads=(),
        )

    def predicted_channels(self, denoiser: Any) -> int:
        """Returns the U-Net's channels: a variance that it predicts is for the scheduler to cut."""
        return int(denoiser.config.out_channels)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns no inputs."""
        return {}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the U-Net's sample f32[B, C, H, W]; the channels of a variance are cut."""
        prediction: torch.Tensor = denoiser(latents, timestep, return_dict=False)[0]
        channels = denoiser.config.in_channels
        return prediction if prediction.shape[1] == channels else prediction[:, :channels]
