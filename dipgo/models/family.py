"""What a family must say of its denoisers: state, timestep, conditioning, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch


@dataclass(frozen=True, slots=True)
class Geometry:
    """What to trace for: pictures a run, their size in pixels, prompt length, guidance or not.

    `height` and `width` of 0 stand for the model's own size.
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


class Family(Protocol):
    """An adapter. Shapes follow diffusers' own calls of the model."""

    @property
    def denoisers(self) -> str:
        """What it is for, in words: the class of diffusers, and of which configuration."""

    @property
    def default_blocks(self) -> tuple[str, ...]:
        """Patterns of the blocks that are gated where none are named."""

    def fits(self, denoiser: Any) -> bool:
        """Whether it is for this denoiser: one class may be called in several ways."""

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        """Shape of the state; `scale` is pixels a latent pixel."""

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Example conditioning by the denoiser's own argument names."""

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The denoiser's prediction, of the shape of `latents`."""


@runtime_checkable
class ForOneSize(Protocol):
    """What an adapter may say besides: that it must know the picture's size."""

    def at_size(self, denoiser: Any, geometry: Geometry, scale: int) -> Family:
        """The adapter for one size, which its `predict` and `conditioning` know."""


@runtime_checkable
class ChoosesTimesteps(Protocol):
    """What an adapter may say besides: that its pipeline gives the scheduler more than steps."""

    def timestep_options(
        self, denoiser: Any, scheduler: Any, geometry: Geometry, scale: int, steps: int
    ) -> dict[str, Any]:
        """Arguments of the scheduler's `set_timesteps` besides the number of steps."""


@runtime_checkable
class SpreadsScale(Protocol):
    """What an adapter may say besides: that guidance is not equally strong everywhere."""

    def spread_scale(
        self, denoiser: Any, scale: torch.Tensor, conditioning: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The scale f32[] as what the prediction is to be multiplied by."""


@runtime_checkable
class Unguided(Protocol):
    """What an adapter may say besides: whether its pipeline guides by two predictions."""

    @property
    def guided(self) -> bool:
        """False where the scale is an input of the denoiser, or there is none."""


def is_guided(family: Family) -> bool:
    """Whether the family's pipeline has classifier-free guidance unless told otherwise."""
    return family.guided if isinstance(family, Unguided) else True


def timestep_options(
    family: Family, denoiser: Any, scheduler: Any, geometry: Geometry, scale: int, steps: int
) -> dict[str, Any]:
    """What the family's pipeline gives `scheduler.set_timesteps` besides the number of steps."""
    if not isinstance(family, ChoosesTimesteps):
        return {}
    return family.timestep_options(denoiser, scheduler, geometry, scale, steps)
