"""`arch:` presets: real architectures with random weights, for measuring before any download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SEED = 0
"""Random weights are the same at every build, so that exporting twice gives the same bytes."""


@dataclass(frozen=True)
class Architecture:
    """Classes of diffusers with their configurations, as published."""

    denoiser_class: str
    denoiser_config: dict[str, Any]
    scheduler_class: str
    scheduler_config: dict[str, Any]
    tokens: int = 77
    """Of the prompt, as the published pipeline gives it: CLIP's unless said."""
    pixels_per_latent: int = 8

    def build_denoiser(self) -> nn.Module:
        """The denoiser in f32, initialised as its class does; leaves torch's generator alone."""
        import diffusers

        with torch.random.fork_rng(devices=()):
            torch.manual_seed(SEED)
            denoiser = getattr(diffusers, self.denoiser_class)(**self.denoiser_config)
        assert isinstance(denoiser, nn.Module)
        return denoiser

    def build_scheduler(self) -> Any:
        """The scheduler that the published pipeline comes with."""
        import diffusers

        return getattr(diffusers, self.scheduler_class).from_config(self.scheduler_config)


STABLE_DIFFUSION_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""What the schedulers of Stable Diffusion 1, 2 and XL share, whichever of it a class reads."""

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""The U-Net of Stable Diffusion 1."""

PIXART = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "sample_size": 128,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
}
"""What the transformers of PixArt-alpha and -Sigma at 1024 pixels share."""

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
"""What the U-Nets of `google/ddpm-*` share (Ho et al. 2020, appendix B)."""

DDPM_SCHEDULE = {"beta_schedule": "linear", "clip_sample": False, "variance_type": "fixed_large"}
"""As published but for `clip_sample`, which is not linear."""

SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""The U-Net of Stable Diffusion XL."""

FLUX = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
}
"""What the transformers of FLUX.1 share."""

SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
}
"""What the medium transformers of Stable Diffusion 3 and 3.5 share."""

DIT_XL = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
"""DiT-XL/2 (Peebles and Xie 2023, table 1)."""

ARCHITECTURES = {
    # runwayml/stable-diffusion-v1-5: unet/config.json, scheduler/scheduler_config.json
    "sd15": Architecture(
        "UNet2DConditionModel",
        SD15,
        "PNDMScheduler",
        STABLE_DIFFUSION_SCHEDULE,
    ),
    # stabilityai/stable-diffusion-2-1: unet/config.json, scheduler/scheduler_config.json
    "sd21": Architecture(
        "UNet2DConditionModel",
        {
            "sample_size": 96,
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        "DDIMScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "prediction_type": "v_prediction"},
    ),
    # stabilityai/stable-diffusion-xl-base-1.0: unet/config.json, scheduler/scheduler_config.json
    "sdxl": Architecture(
        "UNet2DConditionModel",
        SDXL,
        "EulerDiscreteScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "leading"},
    ),
    # stabilityai/sdxl-turbo: the same files; its pipeline is called without guidance
    "sdxl-turbo": Architecture(
        "UNet2DConditionModel",
        {**SDXL, "sample_size": 64},
        "EulerAncestralDiscreteScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "trailing"},
    ),
    # stabilityai/stable-diffusion-3-medium-diffusers: transformer/config.json,
    # scheduler/scheduler_config.json; 77 tokens of CLIP and 256 of T5
    "sd3-medium": Architecture(
        "SD3Transformer2DModel",
        {**SD3, "pos_embed_max_size": 192},
        "FlowMatchEulerDiscreteScheduler",
        {"num_train_timesteps": 1000, "shift": 3.0},
        tokens=77 + 256,
    ),
    # stabilityai/stable-diffusion-3.5-medium: the same files
    "sd35-medium": Architecture(
        "SD3Transformer2DModel",
        {
            **SD3,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        "FlowMatchEulerDiscreteScheduler",
        {"num_train_timesteps": 1000, "shift": 3.0},
        tokens=77 + 256,
    ),
    # black-forest-labs/FLUX.1-dev: transformer/config.json, scheduler/scheduler_config.json
    "flux-dev": Architecture(
        "FluxTransformer2DModel",
        {**FLUX, "guidance_embeds": True},
        "FlowMatchEulerDiscreteScheduler",
        {
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
        tokens=512,
    ),
    # black-forest-labs/FLUX.1-schnell: the same files; tokens as its model card has them
    "flux-schnell": Architecture(
        "FluxTransformer2DModel",
        {**FLUX, "guidance_embeds": False},
        "FlowMatchEulerDiscreteScheduler",
        {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False},
        tokens=256,
    ),
    # stabilityai/stable-video-diffusion-img2vid: unet/config.json, scheduler/scheduler_config.json
    "svd": Architecture(
        "UNetSpatioTemporalConditionModel",
        {
            "sample_size": 96,
            "in_channels": 8,
            "out_channels": 4,
            "num_frames": 14,
            "block_out_channels": (320, 640, 1280, 1280),
            "num_attention_heads": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 768,
        },
        "EulerDiscreteScheduler",
        {
            **STABLE_DIFFUSION_SCHEDULE,
            "prediction_type": "v_prediction",
            "timestep_spacing": "leading",
            "timestep_type": "continuous",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
            "sigma_max": 700.0,
        },
    ),
    # facebook/DiT-XL-2-256: transformer/config.json, scheduler/scheduler_config.json
    "dit-xl-2-256": Architecture(
        "DiTTransformer2DModel",
        {**DIT_XL, "sample_size": 32},
        "DDIMScheduler",
        {"beta_schedule": "linear", "clip_sample": False},
    ),
    # facebook/DiT-XL-2-512: the same files
    "dit-xl-2-512": Architecture(
        "DiTTransformer2DModel",
        {**DIT_XL, "sample_size": 64},
        "DDIMScheduler",
        {"beta_schedule": "linear", "clip_sample": False},
    ),
    # PixArt-alpha/PixArt-XL-2-1024-MS: transformer/config.json, scheduler/scheduler_config.json;
    # 120 tokens of T5
    "pixart-alpha-1024": Architecture(
        "PixArtTransformer2DModel",
        PIXART,
        "DPMSolverMultistepScheduler",
        {"beta_schedule": "linear"},
        tokens=120,
    ),
    # PixArt-alpha/PixArt-Sigma-XL-2-1024-MS: the same files; 300 tokens of T5
    "pixart-sigma-1024": Architecture(
        "PixArtTransformer2DModel",
        {**PIXART, "interpolation_scale": 2, "use_additional_conditions": False},
        "DPMSolverMultistepScheduler",
        {"beta_schedule": "linear"},
        tokens=300,
    ),
    # google/ddpm-cifar10-32: config.json, scheduler_config.json
    "ddpm-cifar10": Architecture(
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
    "ddpm-celebahq-256": Architecture(
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
    # SimianLuo/LCM_Dreamshaper_v7: unet/config.json, scheduler/scheduler_config.json
    "lcm-sd15": Architecture(
        "UNet2DConditionModel",
        {**SD15, "time_cond_proj_dim": 256},
        "LCMScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "set_alpha_to_one": True, "steps_offset": 0},
    ),
    # latent-consistency/lcm-sdxl: config.json; the scheduler is made of that of the base model
    "sdxl-lcm": Architecture(
        "UNet2DConditionModel",
        {**SDXL, "time_cond_proj_dim": 256},
        "LCMScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "leading"},
    ),
}
