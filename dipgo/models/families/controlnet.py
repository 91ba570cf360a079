"""A U-Net with a ControlNet attached, as `StableDiffusionControlNetPipeline` calls the two.

Source: Zhang et al. 2023 (arXiv 2302.05543). The ControlNet is one block beside those of the
U-Net, so that a SubNet may run it at few steps or at the first alone; what it makes of the picture
alone leaves the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.models.diffusers_private import with_own_children
from dipgo.models.families.sdxl import SDXLFamily
from dipgo.models.families.stable_diffusion import (
    CLASS,
    CONTROLNET,
    UNetFamily,
    call_unet,
    family_inputs,
)
from dipgo.models.families.unet_inputs import CONTROL_IMAGE, CONTROL_SCALE, text_arguments
from dipgo.models.family import Family, Geometry
from dipgo.models.text_encoding import TextEncoding

CONTROLNET_CLASS = "ControlNetModel"

SAME = (
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "cross_attention_dim",
    "addition_embed_type",
)
"""Options in which the two agree."""


def attach_controlnet(unet: Any, controlnet: Any) -> nn.Module:
    """A U-Net of the same modules, with the ControlNet as one more; `unet` stays as it is.

    Raises DipgoError for a denoiser or a ControlNet of another kind, or two that do not fit.
    """
    found = (type(unet).__name__, type(controlnet).__name__)
    if found != (CLASS, CONTROLNET_CLASS):
        raise DipgoError(
            "controlnet",
            found=f"{found[1]} beside {found[0]}",
            expected=f"one {CONTROLNET_CLASS} beside {CLASS}",
            remedy="use a pipeline of Stable Diffusion 1, 2 or XL with a single ControlNet",
        )
    _check_fit(unet, controlnet)
    controlled = with_own_children(unet)
    controlled.add_module(CONTROLNET, controlnet.eval().requires_grad_(False))
    return controlled


def _check_fit(unet: Any, controlnet: Any) -> None:
    """Its residuals have the shapes of the U-Net's skips, and it runs on all rows."""
    wanted = {option: unet.config.get(option) for option in SAME}
    wanted |= {"in_channels": unet.config.out_channels, "global_pool_conditions": False}
    for option, value in wanted.items():
        found = controlnet.config.get(option)
        if _plain(found) != _plain(value):
            raise DipgoError(
                f"controlnet, {option}",
                found=str(found),
                expected=f"{value}, for this U-Net",
                remedy="use a ControlNet that was made for this model",
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class ControlledFamily(Family):
    """A family of U-Nets, with two inputs more.

    `controlnet_cond` f32[rows, channels, H, W], the control picture in [0, 1] at the size of the
    pixels; `conditioning_scale` f32[], what the ControlNet's residuals are multiplied by.
    """

    def __init__(self, family: UNetFamily, *pipelines: str) -> None:
        """Takes the family without, and the classes of pipelines that have the two."""
        self.family = family
        self.denoisers = f"{family.denoisers} with a ControlNet"
        self.default_blocks = (*family.default_blocks, CONTROLNET)
        self.pipelines = (*family.pipelines, *pipelines)

    def fits(self, denoiser: Any) -> bool:
        """A U-Net that the family is for, but for the ControlNet that is attached to it."""
        wanted = {**self.family.takes, CONTROLNET: CONTROLNET_CLASS}
        return type(denoiser).__name__ == CLASS and family_inputs(denoiser) == wanted

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """The family's."""
        return self.family.latent_shape(denoiser, geometry)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """The family's, the control picture and its weight."""
        *_, height, width = self.latent_shape(denoiser, geometry)
        config = denoiser.controlnet.config
        scale = 2 ** (len(config.conditioning_embedding_out_channels) - 1)
        image = (geometry.rows, config.conditioning_channels, height * scale, width * scale)
        return {
            **self.family.conditioning(denoiser, geometry),
            CONTROL_IMAGE: torch.zeros(image),
            CONTROL_SCALE: torch.tensor(1.0),
        }

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The U-Net's sample f32[rows, C, H, W]; the ControlNet sees the state alone."""
        down, middle = denoiser.controlnet(
            latents,
            timestep,
            controlnet_cond=conditioning[CONTROL_IMAGE],
            conditioning_scale=conditioning[CONTROL_SCALE],
            **text_arguments(conditioning),
            return_dict=False,
        )
        return call_unet(
            denoiser,
            latents,
            timestep,
            conditioning,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )

    def fixed_conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """The family's."""
        return self.family.fixed_conditioning(denoiser, geometry)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """The family's."""
        return self.family.text_encoding(pipeline, tokens)


def stable_diffusion_controlnet() -> ControlledFamily:
    """Returns the family of Stable Diffusion 1 and 2 with a ControlNet."""
    return ControlledFamily(UNetFamily(), "StableDiffusionControlNetPipeline")


def sdxl_controlnet() -> ControlledFamily:
    """Returns the family of Stable Diffusion XL with a ControlNet."""
    return ControlledFamily(SDXLFamily(), "StableDiffusionXLControlNetPipeline")
