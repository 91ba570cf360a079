"""What a family must say of its denoisers: state, timestep, conditioning, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from dipgo.graph import Dependence


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

    @property
    def takes_guidance(self) -> bool:
        """Whether there is an unconditional prediction to guide by: without it none is made."""

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


class GuidedDenoiser(nn.Module):
    """The denoiser as the sampler sees it: latents in, guided prediction out.

    With guidance the unconditional prediction is a second output, for what is made of both.
    Doubling the batch and combining the two predictions (Ho and Salimans 2022, equation 6, in
    diffusers' form u + s (c - u)) are part of the traced graph, so plans treat them as glue.
    """

    def __init__(self, denoiser: nn.Module, family: Family, names: tuple[str, ...], guidance: bool):
        super().__init__()
        self.denoiser = denoiser
        self.family, self.names, self.guidance = family, names, guidance

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """`rest` is the conditioning in the order of `names`, then, if guided, the scale f32[]."""
        conditioning = dict(zip(self.names, rest, strict=False))
        state = torch.cat([latents, latents]) if self.guidance else latents
        prediction = self.family.predict(self.denoiser, state, timestep, conditioning)
        if not self.guidance:
            return (prediction,)
        unconditional, conditional = prediction.chunk(2)
        return unconditional + rest[-1] * (conditional - unconditional), unconditional


def example_inputs(
    family: Family, denoiser: Any, geometry: Geometry, scale: int
) -> tuple[dict[str, torch.Tensor], dict[str, Dependence]]:
    """Example tensors by name, in the order of `GuidedDenoiser.forward`, and their roles."""
    device = next(denoiser.parameters()).device
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
