"""A U-Net with a ControlNet attached, as `StableDiffusionControlNetPipeline` calls the two.

The ControlNet is one more block next to those of the U-Net, so that a SubNet may run it at few
steps or only at the first. The part of it that reads the control picture alone leaves the loop.

Source: Zhang et al. 2023 (arXiv 2302.05543).
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
from dipgo.models.loop import Loop
from dipgo.models.text_encoding import TextEncoding

CONTROLNET_CLASS = "ControlNetModel"

SAME = (
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "cross_attention_dim",
    "addition_embed_type",
)
"""Options that U-Net and ControlNet must have in common."""


def attach_controlnet(unet: Any, controlnet: Any) -> nn.Module:
    """Returns a U-Net of the same modules, with the ControlNet as one more.

    Args:
        unet: The denoiser; it stays as it is.
        controlnet: The ControlNet, whose parameters are frozen.

    Raises:
        DipgoError: The denoiser or the ControlNet has another class, or they do not fit together.
    """
    classes = (type(unet).__name__, type(controlnet).__name__)
    if classes != (CLASS, CONTROLNET_CLASS):
        raise DipgoError(
            "controlnet",
            found=f"{classes[1]} beside {classes[0]}",
            expected=f"one {CONTROLNET_CLASS} beside {CLASS}",
            remedy="use a pipeline of Stable Diffusion 1, 2 or XL with a single ControlNet",
        )
    _check_fit(unet, controlnet)
    controlled = with_own_children(unet)
    controlled.add_module(CONTROLNET, controlnet.eval().requires_grad_(False))
    return controlled


def _check_fit(unet: Any, controlnet: Any) -> None:
    """Checks that the residuals fit the U-Net's skips, and that the ControlNet runs on all rows."""
    wanted = {option: unet.config.get(option) for option in SAME}
    wanted |= {"in_channels": unet.config.out_channels, "global_pool_conditions": False}
    for option, value in wanted.items():
        present = controlnet.config.get(option)
        if _plain(present) != _plain(value):
            raise DipgoError(
                f"controlnet, {option}",
                found=str(present),
                expected=f"{value}, for this U-Net",
                remedy="use a ControlNet that was made for this model",
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class ControlledFamily(Family):
    """A family of U-Nets with a ControlNet, which has two more inputs.

    `controlnet_cond` f32[rows, channels, H, W] is the control picture in [0, 1] at the size of the
    pixels; `conditioning_scale` f32[] multiplies the ControlNet's residuals.
    """

    def __init__(self, family: UNetFamily, *pipelines: str) -> None:
        """Takes the family without a ControlNet, and the classes of pipelines with one."""
        self.family = family
        self.denoisers = f"{family.denoisers} with a ControlNet"
        self.default_blocks = (*family.default_blocks, CONTROLNET)
        self.pipelines = pipelines
        self.vae_options = family.vae_options

    def fits(self, denoiser: Any) -> bool:
        """Returns whether the family would fit, but for the ControlNet that is attached."""
        wanted = {**self.family.takes, CONTROLNET: CONTROLNET_CLASS}
        return type(denoiser).__name__ == CLASS and family_inputs(denoiser) == wanted

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape that the family has."""
        return self.family.latent_shape(denoiser, geometry)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns the family's conditioning, the control picture and its weight."""
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
        """Returns the U-Net's sample f32[rows, C, H, W].

        The ControlNet sees the state without a mask or masked picture.
        """
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
        """Returns the family's fixed conditioning."""
        return self.family.fixed_conditioning(denoiser, geometry)

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the family's pipelines call their scheduler."""
        return self.family.loop(denoiser, pipeline)

    def fixed_unconditional(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the family's rows of the unconditional half."""
        return self.family.fixed_unconditional(denoiser, geometry)

    def for_pipeline(self, pipeline: Any) -> Family:
        """Returns the family as this pipeline calls its U-Net, with the ControlNet."""
        family = self.family.for_pipeline(pipeline)
        return self if family is self.family else ControlledFamily(family, *self.pipelines)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns the family's text encoding."""
        return self.family.text_encoding(pipeline, tokens)


def _with_picture(name: str) -> tuple[str, str]:
    """Returns the classes of pipelines that begin with noise, and with a picture."""
    return f"{name}Pipeline", f"{name}Img2ImgPipeline"


def stable_diffusion_controlnet() -> ControlledFamily:
    """Returns the family of Stable Diffusion 1 and 2 with a ControlNet."""
    return ControlledFamily(UNetFamily(), *_with_picture("StableDiffusionControlNet"))


def sdxl_controlnet() -> ControlledFamily:
    """Returns the family of Stable Diffusion XL with a ControlNet."""
    return ControlledFamily(SDXLFamily(), *_with_picture("StableDiffusionXLControlNet"))
