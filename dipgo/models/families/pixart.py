"""`PixArtTransformer2DModel` as the pipelines of PixArt-alpha and PixArt-Sigma call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.models.family import Geometry
from dipgo.models.text_encoding import ATTENTION_MASK, HIDDEN_STATES, TextEncoding, Tokens

SIZES = ("resolution", "aspect_ratio")
"""What PixArt-alpha takes as `added_cond_kwargs` (Chen et al. 2023, section 2.5)."""


class PixArtFamily:
    """State f32[B, C, H, W]; conditioning as `PixArtAlphaPipeline` gives it.

    `encoder_hidden_states` f32[rows, tokens, caption width] of T5, `encoder_attention_mask`
    i64[rows, tokens], 0 for tokens that pad. PixArt-alpha at 1024 pixels takes `resolution`
    f32[rows, 2], height and width in pixels, and `aspect_ratio` f32[rows, 1] of height to width.
    """

    denoisers = "PixArtTransformer2DModel"
    default_blocks = ("transformer_blocks.*",)

    def fits(self, denoiser: Any) -> bool:
        """By its class."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size` unless pixels are asked for. Raises DipgoError."""
        config = denoiser.config
        asked = {"height": geometry.height, "width": geometry.width}
        for name, pixels in asked.items():
            _check_size(name, pixels, scale * config.patch_size)
        height, width = (pixels // scale or config.sample_size for pixels in asked.values())
        return (geometry.batch, config.in_channels, height, width)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Hidden states, their mask, and the sizes where the model takes them."""
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
        """The predicted noise; where sigma is learned too, its channels come after and are cut."""
        prediction: torch.Tensor = denoiser(
            latents,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            encoder_attention_mask=conditioning["encoder_attention_mask"],
            timestep=timestep.expand(latents.shape[0]),
            added_cond_kwargs={name: conditioning.get(name) for name in SIZES},
            return_dict=False,
        )[0]
        return prediction[:, : denoiser.config.in_channels]


def _check_size(name: str, pixels: int, patch: int) -> None:
    """`patch` is the pixels of one patch."""
    if pixels % patch:
        raise DipgoError(
            f"--{name}",
            found=str(pixels),
            expected=f"a multiple of {patch}, the pixels of one patch",
            remedy=f"use {max(1, round(pixels / patch)) * patch}",
        )


class PixArtEncoder(nn.Module):
    """Ids and mask i64[rows, tokens] to T5's last hidden state f32[rows, tokens, width]."""

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The mask is a conditioning of the denoiser too, which the tokenizer gives."""
        return (self.encoder(input_ids, attention_mask=mask)[0],)


def pixart_encoding(pipeline: Any, tokens: int) -> TextEncoding:
    """Texts are lower-cased, as where diffusers lacks the packages to clean them further."""
    return TextEncoding(
        PixArtEncoder(pipeline.text_encoder),
        (Tokens(pipeline.tokenizer, "input_ids", tokens, mask=ATTENTION_MASK, lower=True),),
        (HIDDEN_STATES,),
    )
