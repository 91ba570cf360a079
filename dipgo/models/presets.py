"""Preset: a published architecture with random weights, for measuring before any download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SEED = 0
"""Seed of the random weights: every build has the same, so exporting twice gives equal bytes."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Published classes and their configurations; a string names a class of diffusers."""

    denoiser_class: str | type[nn.Module]
    denoiser_config: Mapping[str, Any]
    scheduler_class: str | type[Any]
    scheduler_config: Mapping[str, Any]
    tokens: int = 77
    """Length of the prompt in the published pipeline; CLIP's by default."""
    pixels_per_latent: int = 8

    def build_denoiser(self) -> nn.Module:
        """Returns the denoiser in f32, initialised as its class does.

        Torch's global random generator stays as it is.
        """
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(SEED)
            denoiser = _class(self.denoiser_class)(**self.denoiser_config)
        assert isinstance(denoiser, nn.Module)
        return denoiser

    def build_scheduler(self) -> Any:
        """Returns the scheduler that the published pipeline comes with."""
        return _class(self.scheduler_class).from_config(self.scheduler_config)


def _class(named: str | type[Any]) -> Any:
    import diffusers

    return getattr(diffusers, named) if isinstance(named, str) else named
