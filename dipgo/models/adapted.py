"""Completes adapters that are not a `Family`: plain classes, and those written for dipgo 0.1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dipgo.models.family import Family, Geometry

REQUIRED = ("denoisers", "default_blocks", "fits", "latent_shape", "conditioning", "predict")
OPTIONAL = (
    *("denoisers", "default_blocks"),
    *(name for name in vars(Family) if not name.startswith("_") and name not in REQUIRED),
)

ARGUMENTS = {"latent_shape": 2, "at_size": 2, "timestep_options": 4}
"""Methods that took `scale` (pixels a latent) after the geometry in 0.1, with the number of
arguments they take today."""


def completed(adapter: Any) -> Family:
    """Returns the adapter itself if it is a whole `Family`, else a `Family` that wraps it."""
    takes_scale = any(_takes_scale(adapter, name) for name in ARGUMENTS)
    return adapter if isinstance(adapter, Family) and not takes_scale else Adapted(adapter)


class Adapted(Family):
    """A `Family` with an adapter's own members, and the defaults for those it lacks."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        for name in OPTIONAL:
            if hasattr(adapter, name):
                setattr(self, name, _in_form(adapter, name))

    def __eq__(self, other: object) -> bool:
        """Returns whether both complete the same adapter."""
        return isinstance(other, Adapted) and bool(self.adapter == other.adapter)

    def fits(self, denoiser: Any) -> bool:
        """Returns the adapter's own answer."""
        return bool(self.adapter.fits(denoiser))

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the adapter's own answer."""
        return tuple(_in_form(self.adapter, "latent_shape")(denoiser, geometry))

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns the adapter's own answer."""
        return dict(self.adapter.conditioning(denoiser, geometry))

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the adapter's own answer."""
        prediction: torch.Tensor = self.adapter.predict(denoiser, latents, timestep, conditioning)
        return prediction


def _in_form(adapter: Any, name: str) -> Any:
    """Returns a member of the adapter with the signature that `Family` declares."""
    member = getattr(adapter, name)
    if _takes_scale(adapter, name):
        member = _with_scale(member)
    if name not in ("at_size", "for_pipeline"):
        return member
    return lambda *arguments: completed(member(*arguments))


def _takes_scale(adapter: Any, name: str) -> bool:
    if name not in ARGUMENTS or not hasattr(adapter, name):
        return False
    parameters = inspect.signature(getattr(adapter, name)).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters) > ARGUMENTS[name]


def _with_scale(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a method of 0.1 so that it is called without the scale."""

    def call(*arguments: Any) -> Any:
        after = 1 + next(
            index for index, value in enumerate(arguments) if isinstance(value, Geometry)
        )
        scale = arguments[after - 1].pixels_per_latent
        return method(*arguments[:after], scale, *arguments[after:])

    return call
