"""What a family must say of its denoisers: state, timestep, conditioning, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from dipgo.graph import Dependence
from dipgo.models.reuse_filter import FilterShape, ReuseFilter


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


class GuidedDenoiser(nn.Module):
    """The denoiser as the sampler sees it: latents in, guided prediction out.

    With guidance the unconditional prediction is a second output, for what is made of both. With
    `reuse` the last output is a prediction made of earlier ones, which are the last inputs.
    Doubling the batch and combining the two predictions (Ho and Salimans 2022, equation 6, in
    diffusers' form u + s (c - u)) are part of the traced graph, so plans treat them as glue.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        family: Family,
        names: tuple[str, ...],
        guidance: bool,
        reuse: FilterShape | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.family, self.names, self.guidance, self.reuse = family, names, guidance, reuse
        self.reuse_filter = ReuseFilter()

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """`rest` is the conditioning in the order of `names`, then, if guided, the scale f32[].

        Then, with `reuse`, earlier predictions and their filters.
        """
        if self.reuse:
            *rest, filters = rest  # type: ignore[assignment]
            rest, past = rest[: -self.reuse.values], rest[-self.reuse.values :]
            return (*self._evaluate(latents, timestep, *rest), self.reuse_filter(filters, *past))
        return self._evaluate(latents, timestep, *rest)

    def _evaluate(
        self, latents: torch.Tensor, timestep: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        conditioning = dict(zip(self.names, rest, strict=False))
        state = torch.cat([latents, latents]) if self.guidance else latents
        prediction = self.family.predict(self.denoiser, state, timestep, conditioning)
        if not self.guidance:
            return (prediction,)
        unconditional, conditional = prediction.chunk(2)
        scale = rest[-1]
        if isinstance(self.family, SpreadsScale):
            scale = self.family.spread_scale(self.denoiser, scale, conditioning)
        return unconditional + scale * (conditional - unconditional), unconditional


def guided_denoiser(
    family: Family,
    denoiser: nn.Module,
    geometry: Geometry,
    scale: int,
    reuse: FilterShape | None = None,
) -> GuidedDenoiser:
    """The denoiser as it is traced for `geometry`; `scale` is pixels a latent pixel.

    With `reuse`, also with what makes a prediction of earlier ones.
    """
    names = tuple(family.conditioning(denoiser, geometry))
    sized = _at_size(family, denoiser, geometry, scale)
    return GuidedDenoiser(denoiser, sized, names, geometry.guidance, reuse)


def _at_size(family: Family, denoiser: Any, geometry: Geometry, scale: int) -> Family:
    if not isinstance(family, ForOneSize):
        return family
    return family.at_size(denoiser, geometry, scale)


def example_inputs(
    family: Family, denoiser: Any, geometry: Geometry, scale: int
) -> tuple[dict[str, torch.Tensor], dict[str, Dependence]]:
    """Example tensors by name, in the order of `GuidedDenoiser.forward`, and their roles."""
    device = next(denoiser.parameters()).device
    family = _at_size(family, denoiser, geometry, scale)
    conditioning = family.conditioning(denoiser, geometry)
    example = {
        "latents": torch.zeros(family.latent_shape(denoiser, geometry, scale)),
        "timestep": torch.tensor(1.0),
        **conditioning,
    }
    roles = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP}
    roles |= dict.fromkeys(conditioning, Dependence.PROMPT)
    if geometry.guidance:
        example["guidance_scale"] = torch.tensor(1.0)
        roles["guidance_scale"] = Dependence.PROMPT
    return {name: tensor.to(device) for name, tensor in example.items()}, roles
