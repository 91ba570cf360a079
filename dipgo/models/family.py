"""Family: the adapter of a kind of denoiser, with all that dipgo knows of its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dipgo.models.presets import Preset
from dipgo.models.text_encoding import TextEncoding, count_tokens
from dipgo.models.vae import decoder_by_shape


@dataclass(frozen=True, slots=True)
class Geometry:
    """What to trace for: pictures a run, their size in pixels, prompt length, guidance or not.

    `height` and `width` of 0 stand for the model's own size; `pixels_per_latent` is how many
    pixels of a side one latent stands for.
    """

    batch: int = 1
    height: int = 0
    width: int = 0
    guidance: bool = True
    tokens: int = 77
    pixels_per_latent: int = 8

    @property
    def rows(self) -> int:
        """Batch of the denoiser: guidance doubles it, [unconditional, conditional]."""
        return self.batch * (2 if self.guidance else 1)

    def in_latents(self, own: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width in latents; `own` are those of the model."""
        scale = self.pixels_per_latent
        return self.height // scale or own[0], self.width // scale or own[1]


@dataclass(frozen=True, slots=True)
class PipelinePart:
    """A part of a pipeline that an export carries next to the denoiser, as a module to trace.

    `module` takes the `examples` in their order and returns a tensor for each of `outputs`, of
    which there are one or two; its attribute `wrapped` names the submodule that has the weights.
    """

    name: str
    module: nn.Module
    examples: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]


class Family(ABC):
    """An adapter: how a kind of denoiser is called, in shapes that follow diffusers' own calls.

    Everything after `predict` is optional: the defaults serve a denoiser that is called by its
    conditioning alone.
    """

    denoisers: str
    """What it is for, in words: the class of diffusers, and of which configuration."""

    default_blocks: tuple[str, ...]
    """Patterns of the blocks that are gated where none are named."""

    guided: bool = True
    """Whether the pipeline guides by two predictions: False where the scale is an input of the
    denoiser, or there is none."""

    pipelines: tuple[str, ...] = ()
    """Classes of pipelines, or base classes of theirs, that `text_encoding` is for."""

    presets: Mapping[str, Preset] = MappingProxyType({})
    """Published architectures by their names after `arch:`."""

    @abstractmethod
    def fits(self, denoiser: Any) -> bool:
        """Returns whether it is for this denoiser: one class may be called in several ways."""

    @abstractmethod
    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape of the state."""

    @abstractmethod
    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns example conditioning by the denoiser's own argument names."""

    @abstractmethod
    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the denoiser's prediction, of the shape of `latents`."""

    def unserved_options(self, denoiser: Any) -> dict[str, Any]:
        """Returns what in the configuration of a denoiser of its class decides whether it fits.

        Errors name these options where no family fits.
        """
        return {}

    def at_size(self, denoiser: Any, geometry: Geometry) -> Family:
        """Returns the adapter whose `predict` and `conditioning` know the picture's size."""
        return self

    def timestep_options(
        self, denoiser: Any, scheduler: Any, geometry: Geometry, steps: int
    ) -> dict[str, Any]:
        """Returns the pipeline's arguments of `set_timesteps` besides the number of steps."""
        return {}

    def spread_scale(
        self, denoiser: Any, scale: torch.Tensor, conditioning: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns the scale f32[] as what guidance is multiplied by, place for place."""
        return scale

    def tokens(self, pipeline: Any) -> int:
        """Returns how many tokens of a prompt the hidden states have."""
        return count_tokens(pipeline)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns how a pipeline of `pipelines` makes conditioning of texts, `tokens` long."""
        return None

    def fixed_conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the conditioning that no prompt decides: numbers of a row, alike for all."""
        return {}

    def class_count(self, denoiser: Any) -> int:
        """Returns the classes of one that takes `class_labels`; the next label is for no class.

        Source: `DiTPipeline.__call__`.
        """
        return int(denoiser.config.num_embeds_ada_norm)

    def parts(
        self, pipeline: Any, latents: torch.Tensor, geometry: Geometry
    ) -> Iterable[PipelinePart]:
        """Returns further parts to export besides the text encoder and the VAE.

        Args:
            pipeline: The loaded pipeline of diffusers.
            latents: An example of the state.
            geometry: What is exported.
        """
        return ()

    def decoder(self, vae: Any, latents: torch.Tensor, geometry: Geometry) -> nn.Module:
        """Returns the module that makes pictures f32[B, …, 3, H, W] in [-1, 1] of latents."""
        return decoder_by_shape(vae, tuple(latents.shape), geometry.height, geometry.width)
