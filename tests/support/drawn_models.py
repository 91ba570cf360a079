"""Tiny U-Nets and VAEs of drawn configurations, in pipelines of diffusers."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMPipeline,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from tests.support.zoo import scale_up

WIDTH, TOKENS = 12, 77
"""Of the hidden states of a prompt; CLIP's where there is no tokenizer."""


def unconditional(**config: Any) -> DDIMPipeline:
    """A pipeline around a UNet2DModel; pictures f32[B, 3, 8, 8] unless said otherwise."""
    defaults: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    unet = UNet2DModel(**{**defaults, **config}).eval()
    scale_up(unet)
    return _silent(DDIMPipeline(unet, DDIMScheduler(clip_sample=False)))


@torch.no_grad()
def own_picture(pipeline: DDIMPipeline, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """The loop of the pipeline from given noise, which it does not take."""
    scheduler, latents = copy.deepcopy(pipeline.scheduler), noise
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        prediction = pipeline.unet(latents, timestep).sample
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def draw_unconditional(draw: random.Random) -> DDIMPipeline:
    """A UNet2DModel with or without a mid block, attention, and a size of its own."""
    levels = draw.choice([1, 2, 2, 3])
    channels = draw.choice([1, 2, 3, 4])
    attends = [draw.random() < 0.4 for _ in range(levels)]
    size: Any = draw.choice([8, (8, 16), [16, 8], None])
    return unconditional(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(draw.choice([8, 12]) for _ in range(levels)),
        layers_per_block=draw.choice([1, 2]),
        down_block_types=tuple("AttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        up_block_types=tuple("AttnUpBlock2D" if one else "UpBlock2D" for one in attends[::-1]),
        **({"mid_block_type": None} if draw.random() < 0.5 else {}),
        add_attention=draw.random() < 0.5,
        resnet_time_scale_shift=draw.choice(["default", "scale_shift"]),
    )


def draw_picture_to_picture(draw: random.Random) -> StableDiffusionImg2ImgPipeline:
    """A UNet2DConditionModel without text encoder, and a VAE that may have no distribution."""
    levels = draw.choice([1, 2, 2])
    attends = [draw.random() < 0.5 for _ in range(levels)]
    mid = draw.choice([None, None, "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"])
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=tuple(draw.choice([8, 12]) for _ in range(levels)),
        layers_per_block=draw.choice([1, 2]),
        down_block_types=tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if one else "UpBlock2D" for one in attends[::-1]),
        mid_block_type=mid,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        use_linear_projection=draw.random() < 0.5,
        only_cross_attention=draw.random() < 0.3,
    ).eval()
    scale_up(unet)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=draw_vae(draw),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # Other sizes than one number the pipeline takes only when it is made already.
    unet.register_to_config(sample_size=draw.choice([8, (8, 8), None]))
    return _silent(pipeline)


def draw_vae(draw: random.Random) -> AutoencoderKL | AutoencoderTiny:
    """Of two pixels a latent, with four channels, and scaled latents."""
    scale = draw.choice([1.0, 0.5])
    if draw.random() < 0.5:
        widths: Any = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
        counts: Any = {f"num_{side}_blocks": (1, 1) for side in ("encoder", "decoder")}
        return AutoencoderTiny(scaling_factor=scale, **widths, **counts).eval()
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        scaling_factor=scale,
        mid_block_add_attention=draw.random() < 0.5,
    ).eval()


def _silent(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
