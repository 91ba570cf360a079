"""Inputs that any U-Net may take besides its text: a mask and its picture, pictures as prompts.

Both are read off the U-Net. Nine input channels and four output channels mark an inpainting model;
`load_ip_adapter` sets `encoder_hid_dim_type` to `ip_image_proj`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.common.errors import DipgoError

MASK, MASKED_IMAGE = "mask", "masked_image_latents"

IMAGE_EMBEDS = "image_embeds"

CONTROL_IMAGE, CONTROL_SCALE = "controlnet_cond", "conditioning_scale"

EXTRAS = frozenset({MASK, MASKED_IMAGE, IMAGE_EMBEDS, CONTROL_IMAGE, CONTROL_SCALE})
"""Names of these inputs, and of a ControlNet's."""

INPAINTING_CHANNELS = (9, 4)
"""Channels in and out; in go four of the state, one of the mask, four of the masked picture."""

IMAGE_PROMPT = ("encoder_hid_dim_type", "ip_image_proj")

PROJECTION = "ImageProjection"
"""The class of diffusers that projects the single vector of CLIP's image encoder."""

ADDED = ("text_embeds", "time_ids")
"""Entries of a U-Net's `added_cond_kwargs` besides pictures."""


def takes_mask(denoiser: Any) -> bool:
    """Returns whether the U-Net paints within a mask."""
    return (denoiser.config.in_channels, denoiser.config.out_channels) == INPAINTING_CHANNELS


def takes_image_prompt(denoiser: Any) -> bool:
    """Returns whether an IP-Adapter has been loaded into the U-Net.

    Loading sets the option as an attribute of the configuration, next to its entries.
    """
    option, value = IMAGE_PROMPT
    return bool(getattr(denoiser.config, option, None) == value)


def extra_inputs(denoiser: Any, rows: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Returns example tensors of the extra inputs that the U-Net takes, by name.

    `mask` is f32[rows, 1, h, w], 1 where to paint; `masked_image_latents` f32[rows, 4, h, w];
    `image_embeds` f32[rows, 1, width].

    Args:
        denoiser: The U-Net.
        rows: Rows of the batch.
        size: Height and width of the latents.

    Raises:
        DipgoError: The IP-Adapter is not one that takes one vector a picture.
    """
    inputs: dict[str, torch.Tensor] = {}
    if takes_mask(denoiser):
        inputs[MASK] = torch.zeros(rows, 1, *size)
        inputs[MASKED_IMAGE] = torch.zeros(rows, denoiser.config.out_channels, *size)
    if takes_image_prompt(denoiser):
        inputs[IMAGE_EMBEDS] = torch.zeros(rows, 1, _image_width(denoiser))
    return inputs


def with_mask(latents: torch.Tensor, conditioning: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the U-Net's input f32[rows, 4 or 9, h, w]: latents, and mask and picture if any.

    Source: `StableDiffusionInpaintPipeline.__call__`.
    """
    masked = [conditioning[name] for name in (MASK, MASKED_IMAGE) if name in conditioning]
    return torch.cat([latents, *masked], dim=1) if masked else latents


def text_arguments(conditioning: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Returns the keyword arguments for text and sizes of a U-Net or a ControlNet."""
    added = {name: conditioning[name] for name in ADDED if name in conditioning}
    return {
        "encoder_hidden_states": conditioning["encoder_hidden_states"],
        **({"added_cond_kwargs": added} if added else {}),
    }


def unet_arguments(conditioning: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Returns `text_arguments` and pictures as prompts, a list with an entry per adapter."""
    arguments = text_arguments(conditioning)
    if IMAGE_EMBEDS in conditioning:
        pictures = {IMAGE_EMBEDS: [conditioning[IMAGE_EMBEDS]]}
        arguments["added_cond_kwargs"] = {**arguments.get("added_cond_kwargs", {}), **pictures}
    return arguments


def _image_width(denoiser: Any) -> int:
    projections = list(denoiser.encoder_hid_proj.image_projection_layers)
    classes = [type(projection).__name__ for projection in projections]
    if classes != [PROJECTION]:
        raise DipgoError(
            "IP-Adapter",
            found=" ".join(classes),
            expected=f"one {PROJECTION}: one adapter, for one vector a picture",
            remedy="load one adapter that is neither of the kind plus nor of the kind full",
        )
    if getattr(denoiser, "text_encoder_hid_proj", None) is not None:
        raise DipgoError(
            "IP-Adapter",
            found="a U-Net that projects its text too",
            expected="one that takes the text encoder's hidden states as they are",
            remedy="use a Stable Diffusion 1, 2 or XL model",
        )
    return int(projections[0].image_embeds.in_features)
