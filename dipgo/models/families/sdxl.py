"""`UNet2DConditionModel` as Stable Diffusion XL calls it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dipgo.models.families.stable_diffusion import (
    CLASS,
    STABLE_DIFFUSION_SCHEDULE,
    UNetFamily,
)
from dipgo.models.families.unet_inputs import takes_mask
from dipgo.models.family import Geometry
from dipgo.models.presets import Preset
from dipgo.models.text_encoding import (
    HIDDEN_STATES,
    TextEncoding,
    Tokens,
    encodes_texts,
    find_encoders,
)
from dipgo.models.vae import NORMAL, PictureEncoder, picture_encoder

TIME_IDS = 6
"""Length of `time_ids`: original height and width, top and left of the crop, target height and
width, in pixels (Podell et al. 2023, section 2.2)."""

TIME_IDS_NAME = "time_ids"

AESTHETIC_SCORES = (6.0, 2.5)
"""Scores of what pictures should look like, and should not: defaults of the refiner's pipeline."""

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
"""Configuration of the U-Net of Stable Diffusion XL."""

PRESETS = {
    # stabilityai/stable-diffusion-xl-base-1.0: unet/config.json, scheduler/scheduler_config.json
    "sdxl": Preset(
        "UNet2DConditionModel",
        SDXL,
        "EulerDiscreteScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "leading"},
    ),
    # stabilityai/sdxl-turbo: the same files; its pipeline is called without guidance
    "sdxl-turbo": Preset(
        "UNet2DConditionModel",
        {**SDXL, "sample_size": 64},
        "EulerAncestralDiscreteScheduler",
        {**STABLE_DIFFUSION_SCHEDULE, "timestep_spacing": "trailing"},
    ),
}


def time_ids(height: int, width: int) -> list[float]:
    """Returns a row of `time_ids` for a picture that is neither scaled nor cropped.

    Height and width are in pixels. The pipeline's defaults are the same.
    """
    return [float(number) for number in (height, width, 0, 0, height, width)]


class SDXLEncoders(nn.Module):
    """Encodes ids for one or two CLIPs as hidden states and pooled text.

    They are f32[rows, tokens, sum of widths] and f32[rows, pooled width].
    """

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, *input_ids: Tensor) -> tuple[Tensor, ...]:
        """Returns the penultimate hidden states side by side, and the projected pooled text."""
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(self.encoders.values(), input_ids, strict=True)
        ]
        pooled = next(output[0] for output in outputs if output[0].ndim == 2)
        return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), pooled


class SDXLFamily(UNetFamily):
    """Stable Diffusion XL: state f32[B, C, H, W], conditioning of `StableDiffusionXLPipeline`.

    It is `encoder_hidden_states` f32[rows, tokens, width], `text_embeds` f32[rows, pooled width]
    and `time_ids` f32[rows, 6].
    """

    denoisers = f"{CLASS} of Stable Diffusion XL (addition_embed_type text_time)"
    pipelines = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    )
    presets = PRESETS
    vae_options = NORMAL
    takes: ClassVar[dict[str, Any]] = {"addition_embed_type": "text_time"}
    """The `family_inputs` it serves: a pooled text and sizes are added to the time embedding."""
    time_ids_length = TIME_IDS

    def encoder(self, vae: Any, denoiser: Any) -> PictureEncoder:
        """Returns the encoder: pipelines that paint in do not normalise what they encode.

        Source: `StableDiffusionXLInpaintPipeline._encode_vae_image`.
        """
        return picture_encoder(vae, () if takes_mask(denoiser) else self.vae_options)

    def for_pipeline(self, pipeline: Any) -> SDXLFamily:
        """Returns the adapter of the refiner for a pipeline that is called with its scores."""
        options = getattr(pipeline, "config", {})
        return SDXLRefinerFamily() if options.get("requires_aesthetics_score") else self

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns hidden states, pooled text and sizes."""
        config = denoiser.config
        ids_width = self.time_ids_length * config.addition_time_embed_dim
        pooled_width = config.projection_class_embeddings_input_dim - ids_width
        return {
            **super().conditioning(denoiser, geometry),
            "text_embeds": torch.zeros(geometry.rows, pooled_width),
            TIME_IDS_NAME: torch.zeros(geometry.rows, self.time_ids_length),
        }

    def fixed_conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the sizes of pictures that are neither scaled nor cropped."""
        *_, high, wide = self.latent_shape(denoiser, geometry)
        height = geometry.height or high * geometry.pixels_per_latent
        width = geometry.width or wide * geometry.pixels_per_latent
        return {TIME_IDS_NAME: time_ids(height, width)}

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns the encoding by both CLIPs; a refiner has the second encoder alone."""
        if not encodes_texts(pipeline):
            return None
        present = [suffix for suffix in ("", "_2") if getattr(pipeline, f"text_encoder{suffix}")]
        return TextEncoding(
            SDXLEncoders(find_encoders(pipeline, present)),
            tuple(
                Tokens(getattr(pipeline, f"tokenizer{suffix}"), f"input_ids{suffix}", tokens)
                for suffix in present
            ),
            (HIDDEN_STATES, "text_embeds"),
            zeros_without_negative=bool(pipeline.config.force_zeros_for_empty_prompt),
        )


class SDXLRefinerFamily(SDXLFamily):
    """The refiner of Stable Diffusion XL, as its image-to-image pipeline calls it.

    Its `time_ids` f32[rows, 5] are height and width, top and left of the crop, and a score for how
    pleasing the picture is.
    """

    time_ids_length = 5

    def fixed_conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the sizes of pictures that are not cropped, and the score to be reached."""
        return self._with_score(denoiser, geometry, AESTHETIC_SCORES[0])

    def fixed_unconditional(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the same with the score to be avoided."""
        return self._with_score(denoiser, geometry, AESTHETIC_SCORES[1])

    def _with_score(
        self, denoiser: Any, geometry: Geometry, score: float
    ) -> dict[str, list[float]]:
        rows = super().fixed_conditioning(denoiser, geometry)
        return {TIME_IDS_NAME: [*rows[TIME_IDS_NAME][:4], score]}
