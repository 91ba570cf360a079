"""`UNet2DConditionModel` as Stable Diffusion 1 and 2 call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dipgo.models.families.unet_inputs import (
    IMAGE_PROMPT,
    extra_inputs,
    takes_image_prompt,
    takes_mask,
    unet_arguments,
    with_mask,
)
from dipgo.models.family import Family, Geometry
from dipgo.models.loop import STABLE_DIFFUSION, Loop
from dipgo.models.presets import Preset
from dipgo.models.text_encoding import HIDDEN_STATES, TextEncoding, Tokens, encodes_texts


class ClipEncoder(nn.Module):
    """Encodes token ids i64[rows, tokens] as the last hidden state f32[rows, tokens, width].

    Tokens whose `mask` i64[rows, tokens] is 0 are not attended to.
    """

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns the hidden state that `StableDiffusionPipeline.encode_prompt` takes."""
        return (self.encoder(input_ids, attention_mask=mask)[0],)


CLASS = "UNet2DConditionModel"

STABLE_DIFFUSION_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""Options that the schedulers of Stable Diffusion 1, 2 and XL share; a class reads some of them."""

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""Configuration of the U-Net of Stable Diffusion 1."""

PRESETS = {
    # runwayml/stable-diffusion-v1-5: unet/config.json, scheduler/scheduler_config.json
    "sd15": Preset(
        "UNet2DConditionModel",
        SD15,
        "PNDMScheduler",
        STABLE_DIFFUSION_SCHEDULE,
    ),
    # stabilityai/stable-diffusion-2-1: unet/config.json, scheduler/scheduler_config.json
    "sd21": Preset(
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
}

MORE_INPUTS = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Options that make the U-Net take, or diffusers' pipelines pass to it, more than a text."""

CONTROLNET = "controlnet"
"""The name of an attached ControlNet within its U-Net."""


def more_inputs(denoiser: Any) -> dict[str, Any]:
    """Returns the options by which the U-Net takes more than a state and a text.

    They are the options of MORE_INPUTS that are set, `in_channels` if it differs from the output's,
    and the class of an attached ControlNet.
    """
    inputs = {option: getattr(denoiser.config, option, None) for option in MORE_INPUTS}
    channels = denoiser.config.in_channels
    inputs["in_channels"] = channels if channels != denoiser.config.out_channels else None
    controlnet = getattr(denoiser, CONTROLNET, None)
    inputs[CONTROLNET] = None if controlnet is None else type(controlnet).__name__
    return {option: value for option, value in inputs.items() if value is not None}


def family_inputs(denoiser: Any) -> dict[str, Any]:
    """Returns the extra inputs that a family must declare.

    Masks and image prompts are left out: they are handled for every U-Net.
    """
    inputs = more_inputs(denoiser)
    if takes_mask(denoiser):
        inputs.pop("in_channels")
    if takes_image_prompt(denoiser):
        inputs.pop(IMAGE_PROMPT[0])
    return inputs


class UNetFamily(Family):
    """Stable Diffusion: state f32[B, C, H, W], conditioning by text, masks and image prompts.

    The text is `encoder_hidden_states` f32[rows, tokens, width];
    `dipgo.models.families.unet_inputs` describes masks and image prompts.
    """

    denoisers = f"{CLASS} of Stable Diffusion 1 and 2"
    default_blocks: tuple[str, ...] = ("down_blocks.*", "mid_block", "up_blocks.*")
    pipelines: tuple[str, ...] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    )
    presets = PRESETS
    vae_options: tuple[str, ...] = ()
    takes: ClassVar[dict[str, Any]] = {}
    """The `family_inputs` that the family serves."""

    def fits(self, denoiser: Any) -> bool:
        """Returns whether class and inputs are those that the family is for."""
        return type(denoiser).__name__ == CLASS and family_inputs(denoiser) == self.takes

    def unserved_options(self, denoiser: Any) -> dict[str, Any]:
        """Returns the options by which the U-Net takes more than a text, or predicts more."""
        if type(denoiser).__name__ != CLASS:
            return {}
        options = more_inputs(denoiser)
        if "in_channels" in options:
            options["out_channels"] = denoiser.config.out_channels
        return options

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape at the geometry's size, by default the model's `sample_size`."""
        config = denoiser.config
        return (geometry.batch, config.out_channels, *geometry.in_latents(config.sample_size))

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns the text encoder's hidden states, and the U-Net's extra inputs."""
        width = denoiser.config.cross_attention_dim
        width = width if isinstance(width, int) else width[0]
        *_, high, wide = self.latent_shape(denoiser, geometry)
        return {
            "encoder_hidden_states": torch.zeros(geometry.rows, geometry.tokens, width),
            **extra_inputs(denoiser, geometry.rows, (high, wide)),
        }

    def for_pipeline(self, pipeline: Any) -> UNetFamily:
        """Returns the adapter for the U-Net as this pipeline calls it."""
        return self

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the U-Net's sample f32[rows, C, H, W]."""
        return call_unet(denoiser, latents, timestep, conditioning)

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the pipelines of text, pictures and inpainting call their scheduler."""
        name = type(pipeline).__name__ if pipeline else self.pipelines[0]
        return Loop(
            name, mixers=("add_noise",), paints=takes_mask(denoiser), reads=STABLE_DIFFUSION
        )

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns the encoding as CLIP's last hidden state; its configuration may ask for masks."""
        if not encodes_texts(pipeline):
            return None
        masked = getattr(pipeline.text_encoder.config, "use_attention_mask", False)
        mask = "attention_mask" if masked else ""
        return TextEncoding(
            ClipEncoder(pipeline.text_encoder),
            (Tokens(pipeline.tokenizer, "input_ids", tokens, mask),),
            (HIDDEN_STATES,),
        )


def call_unet(
    denoiser: Any,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditioning: Mapping[str, torch.Tensor],
    **more: Any,
) -> torch.Tensor:
    """Returns the U-Net's sample f32[rows, C, H, W]; `more` are further arguments to the U-Net."""
    prediction: torch.Tensor = denoiser(
        with_mask(latents, conditioning),
        timestep,
        **unet_arguments(conditioning),
        **more,
        return_dict=False,
    )[0]
    return prediction
