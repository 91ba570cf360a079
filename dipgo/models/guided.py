"""Wraps the denoiser as the sampler calls it: guided, with example inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dipgo.ir.graph import GAP_FUNCTION, Dependence
from dipgo.models.family import Family, Geometry
from dipgo.models.gap_functions import GapShape


class GuidedDenoiser(nn.Module):
    """The denoiser as the sampler sees it: latents in, guided prediction out.

    With guidance the unconditional prediction is a second output, for reuse that needs both. With
    `gap` the last output is a prediction made of earlier ones, which are the last inputs.
    Doubling the batch and combining the two predictions as u + s (c - u) are part of the traced
    graph, so plans treat them as glue.

    Source: Ho and Salimans 2022, equation 6, in diffusers' form.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        family: Family,
        names: tuple[str, ...],
        guidance: bool,
        gap: GapShape | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.family, self.names, self.guidance, self.gap = family, names, guidance, gap
        if gap:
            self.add_module(GAP_FUNCTION, gap.module())

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Returns the prediction, with guidance the unconditional one, with `gap` its own.

        Args:
            latents: The state, f32[B, …].
            timestep: The timestep, f32[].
            rest: The conditioning in the order of `names`; if guided, the scale f32[]; with
                `gap`, earlier predictions, then a row of the table.
        """
        if self.gap:
            *rest, table = rest  # type: ignore[assignment]
            rest, past = rest[: -self.gap.values], rest[-self.gap.values :]
            function = self.get_submodule(GAP_FUNCTION)
            return (*self._evaluate(latents, timestep, *rest), function(table, *past))
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
        scale = self.family.spread_scale(self.denoiser, rest[-1], conditioning)
        return unconditional + scale * (conditional - unconditional), unconditional


def guided_denoiser(
    family: Family,
    denoiser: nn.Module,
    geometry: Geometry,
    gap: GapShape | None = None,
) -> GuidedDenoiser:
    """Returns the denoiser as it is traced for `geometry`.

    With `gap` it also makes a prediction of earlier ones.
    """
    sized = family.at_size(denoiser, geometry)
    names = tuple(sized.conditioning(denoiser, geometry))
    return GuidedDenoiser(denoiser, sized, names, geometry.guidance, gap)


def example_inputs(
    family: Family, denoiser: Any, geometry: Geometry
) -> tuple[dict[str, torch.Tensor], dict[str, Dependence]]:
    """Returns example tensors by name, in the order of `GuidedDenoiser.forward`, and roles."""
    device = next(denoiser.parameters()).device
    family = family.at_size(denoiser, geometry)
    conditioning = family.conditioning(denoiser, geometry)
    example = {
        "latents": torch.zeros(family.latent_shape(denoiser, geometry)),
        "timestep": torch.tensor(1.0),
        **conditioning,
    }
    roles = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP}
    roles |= dict.fromkeys(conditioning, Dependence.PROMPT)
    if geometry.guidance:
        example["guidance_scale"] = torch.tensor(1.0)
        roles["guidance_scale"] = Dependence.PROMPT
    return {name: tensor.to(device) for name, tensor in example.items()}, roles
