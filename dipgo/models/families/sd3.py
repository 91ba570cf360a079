"""`SD3Transformer2DModel` as `StableDiffusion3Pipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.models.family import Geometry
from dipgo.models.text_encoding import HIDDEN_STATES, TextEncoding, Tokens, find_encoders


class SD3Family:
    """State f32[B, C, H, W]; conditioning as the pipeline gives it.

    `encoder_hidden_states` f32[rows, tokens, joint width]: CLIP's tokens, then T5's;
    `pooled_projections` f32[rows, pooled width] of the two CLIPs (Esser et al. 2024, section 4).
    """

    denoisers = "SD3Transformer2DModel"
    default_blocks = ("transformer_blocks.*",)

    def fits(self, denoiser: Any) -> bool:
        """By its class."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """The model's `sample_size` unless pixels are asked for. Raises DipgoError."""
        config = denoiser.config
        asked = {"height": geometry.height, "width": geometry.width}
        for name, pixels in asked.items():
            _check_size(name, pixels, scale * config.patch_size, config.pos_embed_max_size)
        height, width = (pixels // scale or config.sample_size for pixels in asked.values())
        return (geometry.batch, config.in_channels, height, width)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Hidden states and the pooled text."""
        rows, config = geometry.rows, denoiser.config
        hidden = torch.zeros(rows, geometry.tokens, config.joint_attention_dim)
        return {
            "encoder_hidden_states": hidden,
            "pooled_projections": torch.zeros(rows, config.pooled_projection_dim),
        }

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The predicted velocity f32[rows, C, H, W]."""
        prediction: torch.Tensor = denoiser(
            hidden_states=latents,
            timestep=timestep.expand(latents.shape[0]),
            **conditioning,
            return_dict=False,
        )[0]
        return prediction


def _check_size(name: str, pixels: int, patch: int, most: int) -> None:
    """`patch` is the pixels of one patch, `most` the patches that positions are known of."""
    if pixels % patch or pixels > patch * most:
        raise DipgoError(
            f"--{name}",
            found=str(pixels),
            expected=f"a multiple of {patch}, the pixels of one patch, and at most {patch * most}",
            remedy=f"use {min(max(1, round(pixels / patch)), most) * patch}",
        )


class SD3Encoders(nn.Module):
    """Ids for two CLIPs and perhaps T5 to hidden states f32[rows, tokens, width], and pooled.

    Without T5 its `t5_tokens` hidden states of `width` are zeros.
    """

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module], t5_tokens: int, width: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.t5_tokens, self.width = t5_tokens, width

    def forward(self, *input_ids: Tensor) -> tuple[Tensor, ...]:
        """CLIP's penultimate hidden states side by side, filled up with zeros; then T5's last."""
        first, second, *t5 = self.encoders.values()
        clips = [
            clip(ids, output_hidden_states=True)
            for clip, ids in zip((first, second), input_ids, strict=False)
        ]
        hidden = torch.cat([one.hidden_states[-2] for one in clips], dim=-1)
        rest = (
            t5[0](input_ids[2])[0]
            if t5
            else hidden.new_zeros(hidden.shape[0], self.t5_tokens, self.width)
        )
        hidden = nn.functional.pad(hidden, (0, rest.shape[-1] - hidden.shape[-1]))
        return torch.cat([hidden, rest], dim=-2), torch.cat([one[0] for one in clips], dim=-1)


def sd3_encoding(pipeline: Any, tokens: int) -> TextEncoding:
    present = ["", "_2", *(["_3"] if pipeline.text_encoder_3 is not None else [])]
    clip = int(pipeline.tokenizer_max_length)
    lengths = (clip, clip, tokens - clip)
    return TextEncoding(
        SD3Encoders(
            find_encoders(pipeline, present),
            tokens - clip,
            int(pipeline.transformer.config.joint_attention_dim),
        ),
        tuple(
            Tokens(getattr(pipeline, f"tokenizer{suffix}"), f"input_ids{suffix}", length)
            for suffix, length in zip(present, lengths, strict=False)
        ),
        (HIDDEN_STATES, "pooled_projections"),
    )
