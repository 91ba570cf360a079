"""Pipelines around the denoisers of the zoo: the parts of a class that its family follows."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel

from dipgo.models.families.stable_diffusion import CONTROLNET
from dipgo.models.registry import find_family
from tests.support.zoo import ZOO


def bare_pipeline(name: str) -> DiffusionPipeline:
    """Returns a pipeline of denoiser and scheduler, of a class with the name of the family's."""
    torch.manual_seed(0)
    denoiser = ZOO[name].build()
    parts: dict[str, Any] = {"scheduler": DDIMScheduler(clip_sample=False)}
    if CONTROLNET in dict(denoiser.named_children()):
        unet = UNet2DConditionModel.from_config(denoiser.config)
        parts |= {"unet": unet, CONTROLNET: _controlnet(unet)}
    else:
        parts["unet" if "UNet" in type(denoiser).__name__ else "transformer"] = denoiser
    cls = getattr(diffusers, find_family(denoiser).pipelines[0])
    pipeline: DiffusionPipeline = cls.__new__(cls)  # its own parts are more than these
    pipeline.register_modules(**parts)
    return pipeline


def _controlnet(unet: Any) -> Any:
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
