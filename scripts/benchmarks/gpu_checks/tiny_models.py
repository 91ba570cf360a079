"""Tiny denoisers: for parity with the oracle, and in place of real models on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from dipgo.models.families.dit import DiTFamily
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.family import Family


@dataclass(frozen=True)
class TinyModel:
    """How it is built, and what dipgo knows it as."""

    build: Callable[[], nn.Module]
    family: Callable[[], Family]
    scheduler: Callable[[], Any]


def _unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    denoiser: nn.Module = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    return denoiser


def _dit() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    denoiser: nn.Module = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_num_groups=2,
    )
    return denoiser


def _ddim() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(clip_sample=False, steps_offset=1)


TINY = {
    "tiny-unet": TinyModel(_unet, UNetFamily, _ddim),
    "tiny-dit": TinyModel(_dit, DiTFamily, _ddim),
}
