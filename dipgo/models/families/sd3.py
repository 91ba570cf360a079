"""`SD3Transformer2DModel` as `StableDiffusion3Pipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.models.families.dynamic_shift import dynamic_shift
from dipgo.models.families.patches import check_patches
from dipgo.models.family import Family, Geometry
from dipgo.models.loop import Loop
from dipgo.models.presets import Preset
from dipgo.models.text_encoding import (
    HIDDEN_STATES,
    TextEncoding,
    Tokens,
    clip_tokens,
    count_tokens,
    encodes_texts,
    find_encoders,
)
from dipgo.models.vae import SHIFT

MAX_SHIFT = 1.16
"""The default of `StableDiffusion3Pipeline` where the scheduler's configuration has none."""

SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
}
"""Options that the medium transformers of Stable Diffusion 3 and 3.5 share."""

PRESETS = {
    # stabilityai/stable-diffusion-3-medium-diffusers: transformer/config.json,
    # scheduler/scheduler_config.json; 77 tokens of CLIP and 256 of T5
    "sd3-medium": Preset(
        "SD3Transformer2DModel",
        {**SD3, "pos_embed_max_size": 192},
        "FlowMatchEulerDiscreteScheduler",
        {"num_train_timesteps": 1000, "shift": 3.0},
        tokens=77 + 256,
    ),
    # stabilityai/stable-diffusion-3.5-medium: the same files
    "sd35-medium": Preset(
        "SD3Transformer2DModel",
        {
            **SD3,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        "FlowMatchEulerDiscreteScheduler",
        {"num_train_timesteps": 1000, "shift": 3.0},
        tokens=77 + 256,
    ),
}


class SD3Encoders(nn.Module):
    """Encodes ids for two CLIPs and perhaps T5 as hidden states and pooled text.

    They are f32[rows, tokens, width] and f32[rows, pooled width]. In the absence of T5 its
    `t5_tokens` hidden states of `width` are zeros.
    """

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module], t5_tokens: int, width: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.t5_tokens, self.width = t5_tokens, width

    def forward(self, *input_ids: Tensor) -> tuple[Tensor, ...]:
        """Returns hidden states and pooled text.

        The hidden states are the CLIPs' penultimate ones side by side, padded with zeros to T5's
        width, then T5's last.
        """
        first, second, *t5 = self.encoders.values()
        clips = [
            clip(ids, output_hidden_states=True)
            for clip, ids in zip((first, second), input_ids, strict=False)
        ]
        hidden = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        rest = (
            t5[0](input_ids[2])[0]
            if t5
            else hidden.new_zeros(hidden.shape[0], self.t5_tokens, self.width)
        )
        hidden = nn.functional.pad(hidden, (0, rest.shape[-1] - hidden.shape[-1]))
        return torch.cat([hidden, rest], dim=-2), torch.cat([clip[0] for clip in clips], dim=-1)


class SD3Family(Family):
    """Stable Diffusion 3: state f32[B, C, H, W], conditioning of its pipeline.

    It is `encoder_hidden_states` f32[rows, tokens, joint width], CLIP's tokens, then T5's, and
    `pooled_projections` f32[rows, pooled width] of the two CLIPs.

    Source: Esser et al. 2024, section 4.
    """

    denoisers = "SD3Transformer2DModel"
    default_blocks = ("transformer_blocks.*",)
    pipelines = ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline")
    presets = PRESETS
    vae_options = SHIFT

    def fits(self, denoiser: Any) -> bool:
        """Returns whether the denoiser has the class in `denoisers`."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape at the geometry's size, by default the model's `sample_size`.

        Raises:
            DipgoError: Height or width is not a whole number of patches, or has more of them than
                the model has positions for.
        """
        config = denoiser.config
        check_patches(geometry, config.patch_size, "one patch", config.pos_embed_max_size)
        return (geometry.batch, config.in_channels, *geometry.in_latents(config.sample_size))

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns hidden states and pooled text."""
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
        """Returns the predicted velocity f32[rows, C, H, W]."""
        prediction: torch.Tensor = denoiser(
            hidden_states=latents,
            timestep=timestep.expand(latents.shape[0]),
            **conditioning,
            return_dict=False,
        )[0]
        return prediction

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the pipelines of text and pictures call their scheduler."""
        return Loop(
            type(pipeline).__name__ if pipeline else self.pipelines[0],
            step_options={},
            mixers=("scale_noise",),
            reads=("order",),
        )

    def timestep_options(
        self, denoiser: Any, scheduler: Any, geometry: Geometry, steps: int
    ) -> dict[str, Any]:
        """Returns the shift `mu`, which grows with the picture, if the scheduler asks for it."""
        if not scheduler.config.get("use_dynamic_shifting"):
            return {}
        *_, height, width = self.latent_shape(denoiser, geometry)
        patch = denoiser.config.patch_size
        patches = (height // patch) * (width // patch)
        return {"mu": dynamic_shift(scheduler.config, patches, MAX_SHIFT)}

    def tokens(self, pipeline: Any) -> int:
        """Returns the number of CLIP's and T5's tokens; zeros stand in for an absent T5's."""
        return clip_tokens(pipeline) + count_tokens(pipeline)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns the hidden states of the two CLIPs, then those of T5."""
        if not encodes_texts(pipeline):
            return None
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
