"""Pipelines of diffusers around tiny models, one for each task, with the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import (
    DDPMPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from tests.support.tiny_pipeline import tiny_vae

SIDE, TOKENS, WIDTH = 8, 3, 8
"""Height and width in latents, and the shape of the text's hidden states."""

PIXELS = 4 * SIDE

SEED, SCALE = 5, 3.0

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """A pipeline of diffusers around a tiny model, and the arguments to call it with."""

    pipeline: Any
    call: dict[str, Any]
    conditioning: Tensors
    from_picture: bool = False
    takes_mask: bool = False
    takes_eta: bool = False
    global_noise: bool = False
    """Whether its scheduler draws from torch's global generator."""


def _text(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, TOKENS, WIDTH)


def _unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=2,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        **more,
    )


def _stable_diffusion(cls: Any, unet: Any, **more: Any) -> Any:
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    encoders = {"text_encoder": None, "tokenizer": None}
    return cls(vae=tiny_vae(), unet=unet, scheduler=None, **encoders, **parts, **more)


def _unet_task(cls: Any, **flags: Any) -> Task:
    text, none = _text(), _text()
    call = {"prompt_embeds": text, "negative_prompt_embeds": none, "guidance_scale": SCALE}
    unet = _unet(in_channels=9 if flags.get("takes_mask") else 4)
    conditioning = {"encoder_hidden_states": torch.cat([none, text])}
    return Task(_stable_diffusion(cls, unet), call, conditioning, takes_eta=True, **flags)


def _lcm_task(cls: Any, **flags: Any) -> Task:
    text = _text()
    pipeline = _stable_diffusion(cls, _unet(time_cond_proj_dim=6))
    scale = pipeline.get_guidance_scale_embedding(torch.tensor([SCALE - 1]), 6)
    call = {"prompt_embeds": text, "guidance_scale": SCALE}
    conditioning = {"encoder_hidden_states": text, "timestep_cond": scale}
    return Task(pipeline, call, conditioning, **flags)


def _sd3_task(cls: Any, **flags: Any) -> Task:
    transformer = SD3Transformer2DModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=8,
        pooled_projection_dim=5,
        pos_embed_max_size=8,
    )
    names = [f"{part}{suffix}" for part in ("text_encoder", "tokenizer") for suffix in SUFFIXES]
    parts = dict.fromkeys(names)
    vae = tiny_vae()
    vae.register_to_config(shift_factor=0.2)
    pipeline = cls(transformer=transformer, vae=vae, scheduler=None, **parts)
    text, none, pooled, no_pooled = _text(), _text(), torch.randn(1, 5), torch.randn(1, 5)
    call = {"prompt_embeds": text, "negative_prompt_embeds": none, "guidance_scale": SCALE}
    call |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": no_pooled}
    conditioning = {
        "encoder_hidden_states": torch.cat([none, text]),
        "pooled_projections": torch.cat([no_pooled, pooled]),
    }
    return Task(pipeline, call, conditioning, global_noise=True, **flags)


SUFFIXES = ("", "_2", "_3")


def _flux_task() -> Task:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=5,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    pipeline = FluxPipeline(
        transformer=transformer, vae=tiny_vae(), scheduler=None, **dict.fromkeys(parts)
    )
    text, pooled = _text(), torch.randn(1, 5)
    call = {"prompt_embeds": text, "pooled_prompt_embeds": pooled, "guidance_scale": SCALE}
    conditioning = {"encoder_hidden_states": text, "pooled_projections": pooled}
    conditioning |= {"guidance": torch.tensor([SCALE])}
    return Task(pipeline, call, conditioning, global_noise=True)


def _dit_task() -> Task:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=SIDE,
        num_embeds_ada_norm=1000,
        norm_num_groups=2,
    )
    pipeline = DiTPipeline(transformer, tiny_vae(), None)
    labels = {"class_labels": torch.tensor([1000, 3])}
    return Task(pipeline, {"class_labels": [3], "guidance_scale": SCALE}, labels, global_noise=True)


def _unconditional_task(predicted: int) -> Task:
    unet = UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=predicted,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
    )
    pipeline = DDPMPipeline(unet, diffusers.DDPMScheduler())
    return Task(pipeline, {}, {})


TASKS: dict[str, Callable[[], Task]] = {
    "text": lambda: _unet_task(StableDiffusionPipeline),
    "picture": lambda: _unet_task(StableDiffusionImg2ImgPipeline, from_picture=True),
    "inpainting": lambda: _unet_task(StableDiffusionInpaintPipeline, takes_mask=True),
    "lcm text": lambda: _lcm_task(LatentConsistencyModelPipeline),
    "lcm picture": lambda: _lcm_task(LatentConsistencyModelImg2ImgPipeline, from_picture=True),
    "sd3 text": lambda: _sd3_task(StableDiffusion3Pipeline),
    "sd3 picture": lambda: _sd3_task(StableDiffusion3Img2ImgPipeline, from_picture=True),
    "flux": _flux_task,
    "dit": _dit_task,
    "unconditional": lambda: _unconditional_task(3),
    "unconditional, variance": lambda: _unconditional_task(6),
}


@cache
def task(name: str) -> Task:
    """Returns a task; its model is made once."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = TASKS[name]()
    for part in made.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    made.pipeline.set_progress_bar_config(disable=True)
    return made
