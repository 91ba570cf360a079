"""Family: the adapter of a class of denoisers, with all that dipgo knows about that class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dipgo.common.errors import DipgoError, setting
from dipgo.models.loop import Loop
from dipgo.models.presets import Preset
from dipgo.models.text_encoding import TextEncoding, count_tokens
from dipgo.models.vae import NORMAL, SHIFT, PictureEncoder, picture_encoder, vae_decoder


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes to trace for: pictures a run, height, width, prompt length, guidance or not.

    `height` and `width` are in pixels; 0 stands for the model's own size. `pixels_per_latent` is
    how many pixels of a side one latent stands for, and `tokens` the length of the prompt.
    """

    batch: int = 1
    height: int = 0
    width: int = 0
    guidance: bool = True
    tokens: int = 77
    pixels_per_latent: int = 8

    @property
    def rows(self) -> int:
        """The denoiser's batch: guidance doubles it, [unconditional, conditional]."""
        return self.batch * (2 if self.guidance else 1)

    def in_latents(self, own: int | Sequence[int] | None) -> tuple[int, int]:
        """Returns height and width in latents.

        Args:
            own: The model's, as a configuration's `sample_size` has them: one number for both, or
                two; they stand in for 0. None if it has none.

        Raises:
            DipgoError: A size is 0, and the model has none.
        """
        scale = self.pixels_per_latent
        height, width = (own, own) if isinstance(own, int) else own or (0, 0)
        sizes = {"height": self.height // scale or height, "width": self.width // scale or width}
        for name, size in sizes.items():
            if not size:
                raise DipgoError(
                    setting(name),
                    found="no size, for a model whose configuration has none",
                    expected="pixels",
                    remedy=f"give {setting('height')} and {setting('width')}",
                )
        return sizes["height"], sizes["width"]


@dataclass(frozen=True, slots=True)
class PipelinePart:
    """A part of a pipeline that an export carries next to the denoiser, as a module to trace.

    `module` takes the `examples` in their order and returns a tensor for each of the one or two
    `outputs`; its attribute `wrapped` names the submodule that has the weights.
    """

    name: str
    module: nn.Module
    examples: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]


class Family(ABC):
    """An adapter: how a class of denoisers is called, in shapes that follow diffusers' own calls.

    Everything after `predict` is optional: the defaults serve a denoiser that is called with its
    conditioning alone.
    """

    denoisers: str
    """The denoisers it serves, in words: the class of diffusers, and which configurations."""

    default_blocks: tuple[str, ...]
    """Patterns of the blocks that are gated where the user names none."""

    guided: bool = True
    """Whether the pipeline guides by two predictions: False where the scale is an input of the
    denoiser, or there is no guidance."""

    pipelines: tuple[str, ...] = ()
    """Classes of pipelines, or their base classes, that the adapter follows, and that
    `text_encoding` serves. If there are any, no other pipeline is taken."""

    vae_options: tuple[str, ...] = SHIFT + NORMAL
    """The options of a VAE, besides `scaling_factor`, by which the pipelines change its latents."""

    presets: Mapping[str, Preset] = MappingProxyType({})
    """Published architectures by their names after `arch:`."""

    @abstractmethod
    def fits(self, denoiser: Any) -> bool:
        """Returns whether the adapter serves this denoiser.

        The class alone may not decide: one class may be called in several ways.
        """

    @abstractmethod
    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape of the sampler's state, of `geometry.batch` rows."""

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

    def for_pipeline(self, pipeline: Any) -> Family:
        """Returns the adapter for the denoiser as this pipeline calls it."""
        return self

    def unserved_options(self, denoiser: Any) -> dict[str, Any]:
        """Returns the options in a denoiser's configuration that decide whether the adapter fits.

        Errors name these options where no family fits. Denoisers of other classes have none.
        """
        return {}

    def at_size(self, denoiser: Any, geometry: Geometry) -> Family:
        """Returns an adapter whose `predict` and `conditioning` know the picture's size."""
        return self

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how the pipeline calls its scheduler, by default as Stable Diffusion's does.

        Args:
            denoiser: The denoiser.
            pipeline: The loaded pipeline of diffusers; None for an architecture.
        """
        return Loop(type(pipeline).__name__ if pipeline else "the model's pipeline")

    def predicted_channels(self, denoiser: Any) -> int | None:
        """Returns the channels that the scheduler is given; None for those of the state."""
        return None

    def packed_grid(self) -> tuple[int, int] | None:
        """Returns rows and columns of packed latents f32[B, rows * columns, 4 C], at this size.

        Each row holds 2 x 2 latent pixels. None if the latents are not packed so.

        Source: `FluxPipeline._pack_latents`.
        """
        return None

    def timestep_options(
        self, denoiser: Any, scheduler: Any, geometry: Geometry, steps: int
    ) -> dict[str, Any]:
        """Returns arguments to `set_timesteps` that depend on size, scheduler or steps."""
        return {}

    def spread_scale(
        self, denoiser: Any, scale: torch.Tensor, conditioning: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns the factor of guidance, which broadcasts against a prediction.

        Args:
            denoiser: The denoiser that predicts.
            scale: The guidance scale, f32[].
            conditioning: The denoiser's other inputs, by name.
        """
        return scale

    def tokens(self, pipeline: Any) -> int:
        """Returns the number of tokens in the hidden states of a prompt."""
        return count_tokens(pipeline)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        """Returns how a pipeline of `pipelines` makes conditioning of texts.

        Args:
            pipeline: The loaded pipeline of diffusers.
            tokens: Length of the hidden states f32[rows, tokens, width].

        Returns:
            The encoding, or None if the pipeline takes no texts.
        """
        return None

    def fixed_conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the conditioning that no prompt changes: by name, the values of a row."""
        return {}

    def fixed_unconditional(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        """Returns the rows of `fixed_conditioning` that differ in the unconditional half."""
        return {}

    def class_count(self, denoiser: Any) -> int:
        """Returns the number of classes of a denoiser that takes `class_labels`.

        The label that equals this number stands for no class.

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
        """Returns the module that decodes latents to pictures f32[B, …, 3, H, W] in [-1, 1]."""
        return vae_decoder(vae, self.vae_options, tuple(latents.shape), self.packed_grid())

    def encoder(self, vae: Any, denoiser: Any) -> PictureEncoder:
        """Returns the module that encodes pictures to start from, or to paint in."""
        return picture_encoder(vae, self.vae_options)
