"""SizedModel: a model at one geometry, with its family's answers computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from dipgo.models.family import Family, Geometry, PipelinePart
from dipgo.models.registry import find_text_encoding
from dipgo.models.text_encoding import TextEncoding


@dataclass(frozen=True)  # without slots: cached properties are stored next to the fields
class SizedModel:
    """A denoiser, its family and its pipeline, if it has one, for pictures of one size."""

    family: Family
    denoiser: nn.Module
    pipeline: Any | None
    geometry: Geometry

    @cached_property
    def sized_family(self) -> Family:
        """The family at this size.

        Raises:
            DipgoError: The model cannot have this size.
        """
        return self.family.at_size(self.denoiser, self.geometry)

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of the state.

        Raises:
            DipgoError: The model cannot have this size.
        """
        return self.sized_family.latent_shape(self.denoiser, self.geometry)

    @cached_property
    def conditioning(self) -> dict[str, Tensor]:
        """Example conditioning by the denoiser's own argument names."""
        return self.sized_family.conditioning(self.denoiser, self.geometry)

    @cached_property
    def text_encoding(self) -> TextEncoding | None:
        """The way in which the pipeline makes conditioning of texts; None where there is none."""
        return find_text_encoding(self.pipeline, self.geometry.tokens, self.family)

    @cached_property
    def fixed_conditioning(self) -> dict[str, list[float]]:
        """The conditioning that does not depend on prompts: by name, the values of a row."""
        return self.sized_family.fixed_conditioning(self.denoiser, self.geometry)

    def timestep_options(self, scheduler: Any, steps: int) -> dict[str, Any]:
        """Returns the pipeline's arguments to `set_timesteps` besides the number of steps."""
        return self.family.timestep_options(self.denoiser, scheduler, self.geometry, steps)

    def parts(self, latents: Tensor) -> Iterable[PipelinePart]:
        """Returns the pipeline's parts besides text encoder and VAE; `latents` are an example."""
        return self.sized_family.parts(self.pipeline, latents, self.geometry)

    def decoder(self, vae: Any, latents: Tensor) -> nn.Module:
        """Returns the module that decodes latents to pictures."""
        return self.sized_family.decoder(vae, latents, self.geometry)
