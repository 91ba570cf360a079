"""`FluxTransformer2DModel` as `FluxPipeline` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
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
    encodes_texts,
    find_encoders,
)
from dipgo.models.vae import SHIFT

PATCH = 2
"""Latent pixels on each side of the patch that a row of the packed latents holds."""

MAX_SHIFT = 1.15
"""The default of `FluxPipeline` where the scheduler's configuration has no `max_shift`."""

TRAIN_TIMESTEPS = 1000

FLUX = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
}
"""Options that the transformers of FLUX.1 share."""

PRESETS = {
    # black-forest-labs/FLUX.1-dev: transformer/config.json, scheduler/scheduler_config.json
    "flux-dev": Preset(
        "FluxTransformer2DModel",
        {**FLUX, "guidance_embeds": True},
        "FlowMatchEulerDiscreteScheduler",
        {
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
        tokens=512,
    ),
    # black-forest-labs/FLUX.1-schnell: the same files; tokens as its model card has them
    "flux-schnell": Preset(
        "FluxTransformer2DModel",
        {**FLUX, "guidance_embeds": False},
        "FlowMatchEulerDiscreteScheduler",
        {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False},
        tokens=256,
    ),
}


class FluxEncoders(nn.Module):
    """Encodes ids for CLIP and T5 as T5's hidden states and CLIP's pooled text.

    They are f32[rows, tokens, width] and f32[rows, pooled width].
    """

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, input_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, ...]:
        """Returns hidden states and pooled text as `FluxPipeline.encode_prompt` does."""
        clip, t5 = self.encoders.values()
        return t5(t5_ids)[0], clip(input_ids).pooler_output


@dataclass(frozen=True)
class FluxFamily(Family):
    """FLUX.1: state f32[B, L, C] of packed latents, a row for 2 x 2 latent pixels.

    Its conditioning is `encoder_hidden_states` f32[rows, tokens, joint width] of T5,
    `pooled_projections` f32[rows, pooled width] of CLIP, and where the scale is embedded `guidance`
    f32[rows] (the pipeline's `guidance_scale`; its `true_cfg_scale` is guidance by two
    predictions). `size` is height and width in latent pixels; its default is
    `FluxPipeline.default_sample_size`, since the model's configuration has none.
    """

    size: tuple[int, int] = (128, 128)

    denoisers = "FluxTransformer2DModel"
    default_blocks = ("transformer_blocks.*", "single_transformer_blocks.*")
    guided = False
    pipelines = ("FluxPipeline",)
    presets = PRESETS
    vae_options = SHIFT

    def fits(self, denoiser: Any) -> bool:
        """Returns whether the denoiser has the class in `denoisers`."""
        return type(denoiser).__name__ == self.denoisers

    def at_size(self, denoiser: Any, geometry: Geometry) -> FluxFamily:
        """Returns the family at the geometry's size.

        Raises:
            DipgoError: Height or width is not a whole number of rows of the packed latents.
        """
        check_patches(geometry, PATCH, f"{PATCH} latents")
        return replace(self, size=geometry.in_latents(self.size))

    def packed_grid(self) -> tuple[int, int]:
        """Returns rows and columns of the packed latents."""
        return self.size[0] // PATCH, self.size[1] // PATCH

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape f32[B, L, C] of the packed latents.

        Raises:
            DipgoError: Height or width is not a whole number of rows of the packed latents.
        """
        rows, columns = self.at_size(denoiser, geometry).packed_grid()
        return (geometry.batch, rows * columns, denoiser.config.in_channels)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns hidden states, pooled text, and the scale if the model was distilled with it."""
        rows, config = geometry.rows, denoiser.config
        hidden = torch.zeros(rows, geometry.tokens, config.joint_attention_dim)
        pooled = torch.zeros(rows, config.pooled_projection_dim)
        scale = {"guidance": torch.zeros(rows)} if config.guidance_embeds else {}
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled, **scale}

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how `FluxPipeline` calls its scheduler, one for flow matching."""
        return Loop("FluxPipeline", step_options={}, reads=("order",))

    def timestep_options(
        self, denoiser: Any, scheduler: Any, geometry: Geometry, steps: int
    ) -> dict[str, Any]:
        """Returns the pipeline's sigmas, and their shift `mu`, which grows with the picture."""
        rows, columns = self.at_size(denoiser, geometry).packed_grid()
        options: dict[str, Any] = {"mu": dynamic_shift(scheduler.config, rows * columns, MAX_SHIFT)}
        if scheduler.config.get("use_flow_sigmas"):
            return options
        return {**options, "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the predicted velocity f32[rows, L, C]; positions are constants of the size."""
        tokens = conditioning["encoder_hidden_states"].shape[1]
        prediction: torch.Tensor = denoiser(
            hidden_states=latents,
            timestep=timestep.expand(latents.shape[0]) / TRAIN_TIMESTEPS,
            **conditioning,
            txt_ids=torch.zeros(tokens, 3, device=latents.device),
            img_ids=self._positions().to(latents.device),
            return_dict=False,
        )[0]
        return prediction

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns T5's hidden states and CLIP's pooled text."""
        if not encodes_texts(pipeline):
            return None
        return TextEncoding(
            FluxEncoders(find_encoders(pipeline, ["", "_2"])),
            (
                Tokens(pipeline.tokenizer, "input_ids", int(pipeline.tokenizer_max_length)),
                Tokens(pipeline.tokenizer_2, "input_ids_2", tokens),
            ),
            (HIDDEN_STATES, "pooled_projections"),
        )

    def _positions(self) -> torch.Tensor:
        """Returns f32[L, 3]: zero, row and column of each packed row."""
        rows, columns = (torch.arange(count) for count in self.packed_grid())
        grid = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), rows, columns)
        return grid.float()
