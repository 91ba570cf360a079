"""`PixArtTransformer2DModel` as the pipelines of PixArt-alpha and PixArt-Sigma call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.models.families.patches import check_patches, without_sigma
from dipgo.models.family import Family, Geometry
from dipgo.models.loop import STABLE_DIFFUSION, Loop
from dipgo.models.presets import Preset
from dipgo.models.text_encoding import (
    ATTENTION_MASK,
    HIDDEN_STATES,
    TextEncoding,
    Tokens,
    default_of_call,
    encodes_texts,
)

SIZES = ("resolution", "aspect_ratio")
"""Entries of PixArt-alpha's `added_cond_kwargs` (Chen et al. 2023, section 2.5)."""

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
"""Options that the transformers of PixArt-alpha and -Sigma at 1024 pixels share."""

PRESETS = {
    # PixArt-alpha/PixArt-XL-2-1024-MS: transformer/config.json, scheduler/scheduler_config.json;
    # 120 tokens of T5
    "pixart-alpha-1024": Preset(
        "PixArtTransformer2DModel",
        PIXART,
        "DPMSolverMultistepScheduler",
        {"beta_schedule": "linear"},
        tokens=120,
    ),
    # PixArt-alpha/PixArt-Sigma-XL-2-1024-MS: the same files; 300 tokens of T5
    "pixart-sigma-1024": Preset(
        "PixArtTransformer2DModel",
        {**PIXART, "interpolation_scale": 2, "use_additional_conditions": False},
        "DPMSolverMultistepScheduler",
        {"beta_schedule": "linear"},
        tokens=300,
    ),
}


CLEANING = (
    "prompts are lower-cased and stripped, as by the pipeline with clean_caption=False; "
    "with beautifulsoup4 and ftfy installed, its default cleans them further"
)
"""What the export says where the pipeline would treat prompts otherwise."""


class PixArtEncoder(nn.Module):
    """Encodes ids and mask i64[rows, tokens] as T5's last hidden state f32[rows, tokens, width]."""

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Returns the hidden state alone: the denoiser takes the mask from the tokenizer."""
        return (self.encoder(input_ids, attention_mask=mask)[0],)


class PixArtFamily(Family):
    """PixArt: state f32[B, C, H, W], conditioning of `PixArtAlphaPipeline`.

    It is `encoder_hidden_states` f32[rows, tokens, caption width] of T5, and
    `encoder_attention_mask` i64[rows, tokens], 0 for tokens that pad. PixArt-alpha at 1024 pixels
    also takes `resolution` f32[rows, 2], height and width in pixels, and `aspect_ratio`
    f32[rows, 1] of height to width.
    """

    denoisers = "PixArtTransformer2DModel"
    default_blocks = ("transformer_blocks.*",)
    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    presets = PRESETS
    vae_options = ()

    def fits(self, denoiser: Any) -> bool:
        """Returns whether the denoiser has the class in `denoisers`."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape at the geometry's size, by default the model's `sample_size`.

        Raises:
            DipgoError: Height or width is not a whole number of patches.
        """
        config = denoiser.config
        check_patches(geometry, config.patch_size, "one patch")
        return (geometry.batch, config.in_channels, *geometry.in_latents(config.sample_size))

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the pipelines call their scheduler."""
        name = type(pipeline).__name__ if pipeline else self.pipelines[0]
        return Loop(name, reads=STABLE_DIFFUSION)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns hidden states, their mask, and the sizes if the model takes them."""
        rows, config = geometry.rows, denoiser.config
        width = config.caption_channels or config.cross_attention_dim
        inputs = {
            "encoder_hidden_states": torch.zeros(rows, geometry.tokens, width),
            "encoder_attention_mask": torch.ones(rows, geometry.tokens, dtype=torch.int64),
        }
        if denoiser.use_additional_conditions:
            inputs |= {"resolution": torch.zeros(rows, 2), "aspect_ratio": torch.ones(rows, 1)}
        return inputs

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the predicted noise; the channels of a learned sigma come last and are cut."""
        prediction: torch.Tensor = denoiser(
            latents,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            encoder_attention_mask=conditioning["encoder_attention_mask"],
            timestep=timestep.expand(latents.shape[0]),
            added_cond_kwargs={name: conditioning.get(name) for name in SIZES},
            return_dict=False,
        )[0]
        return without_sigma(prediction, denoiser.config.in_channels)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns T5's encoding of texts that are lower-cased and stripped.

        The pipeline does the same where it lacks the packages to clean texts further.
        """
        from diffusers.utils import is_bs4_available, is_ftfy_available

        if not encodes_texts(pipeline):
            return None
        cleans = is_bs4_available() and is_ftfy_available()
        tokens_of_t5 = Tokens(
            pipeline.tokenizer,
            "input_ids",
            tokens,
            mask=ATTENTION_MASK,
            lower=True,
            caveat=CLEANING if cleans and default_of_call(pipeline, "clean_caption") else "",
        )
        return TextEncoding(
            PixArtEncoder(pipeline.text_encoder),
            (tokens_of_t5,),
            (HIDDEN_STATES,),
        )
