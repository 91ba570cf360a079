"""`DiTTransformer2DModel` as `DiTPipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dipgo.models.families.patches import without_sigma
from dipgo.models.family import Family, Geometry
from dipgo.models.loop import Loop
from dipgo.models.presets import Preset

DIT_XL = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
"""Configuration of DiT-XL/2 (Peebles and Xie 2023, table 1)."""

PRESETS = {
    # facebook/DiT-XL-2-256: transformer/config.json, scheduler/scheduler_config.json
    "dit-xl-2-256": Preset(
        "DiTTransformer2DModel",
        {**DIT_XL, "sample_size": 32},
        "DDIMScheduler",
        {"beta_schedule": "linear", "clip_sample": False},
    ),
    # facebook/DiT-XL-2-512: the same files
    "dit-xl-2-512": Preset(
        "DiTTransformer2DModel",
        {**DIT_XL, "sample_size": 64},
        "DDIMScheduler",
        {"beta_schedule": "linear", "clip_sample": False},
    ),
}


class DiTFamily(Family):
    """DiT: state f32[B, C, H, W], conditioning `class_labels` i64[rows]."""

    denoisers = "DiTTransformer2DModel"
    default_blocks = ("transformer_blocks.*",)
    pipelines = ("DiTPipeline",)
    presets = PRESETS
    vae_options = ()

    def fits(self, denoiser: Any) -> bool:
        """Returns whether the denoiser has the class in `denoisers`."""
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape at the model's `sample_size`: the position embedding has that size."""
        size = denoiser.config.sample_size
        return (geometry.batch, denoiser.config.in_channels, size, size)

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how `DiTPipeline` calls its scheduler.

        It does not scale the first noise, and puts the scaled input in the state's place.
        """
        reads = ("scale_model_input",)
        return Loop("DiTPipeline", step_options={}, reads=reads, scales_in_place=True)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns class labels; unconditional rows carry the label `num_embeds_ada_norm`."""
        return {"class_labels": torch.zeros(geometry.rows, dtype=torch.int64)}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the predicted noise; the channels of a learned sigma come last and are cut."""
        prediction: torch.Tensor = denoiser(
            latents, timestep.expand(latents.shape[0]), **conditioning, return_dict=False
        )[0]
        return without_sigma(prediction, denoiser.config.in_channels)
