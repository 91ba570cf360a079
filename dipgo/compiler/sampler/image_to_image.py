"""Starts image-to-image trajectories late, from a picture's latents with noise on them.

Of N steps the last share `strength` is run, as `get_timesteps` and `prepare_latents` of diffusers'
image-to-image pipelines do.

Source: Meng et al. 2022, SDEdit.
"""

from __future__ import annotations

from typing import Any

import torch

from dipgo.common.errors import DipgoError, setting
from dipgo.ir.sampler import Start

TOLERANCE = 1e-6
"""Relative tolerance of the linearity check."""


def begin_at(started: Any, steps: int, strength: float) -> None:
    """Moves a scheduler with its timesteps set to the step from which it is to run.

    Raises:
        DipgoError: The strength leaves no step.
    """
    first = _first_step(steps, strength, flow=not hasattr(started, "add_noise"))
    begin = first * getattr(started, "order", 1)
    if hasattr(started, "set_begin_index"):
        started.set_begin_index(begin)
    else:
        started.timesteps = started.timesteps[begin:]


def remaining_timesteps(started: Any) -> Any:
    """Returns the timesteps to be evaluated: all, unless the scheduler is to begin late."""
    return started.timesteps[getattr(started, "begin_index", None) or 0 :]


def _first_step(steps: int, strength: float, flow: bool) -> int:
    """Returns the first step; pipelines of flow-matching models (`flow`) round the rest up."""
    if not 0 < strength <= 1:
        raise DipgoError(
            setting("strength"),
            found=f"{strength:g}",
            expected="a share of the steps above 0, at most 1",
            remedy="0.6 for example runs the last 60 of 100 steps",
        )
    first = int(max(steps - steps * strength, 0)) if flow else steps - int(steps * strength)
    if first >= steps:
        raise DipgoError(
            setting("strength"),
            found=f"{strength:g} of {steps} steps, which is none",
            expected="at least one step",
            remedy="choose a larger strength, or more steps",
        )
    return first


def find_start(started: Any, strength: float | None) -> Start:
    """Returns how noise, and with a strength a picture's latents, become the first state.

    Args:
        started: A scheduler with its timesteps set, at the step from which it is to run.
        strength: The share of the steps that is run; None for a run from noise.

    Raises:
        DipgoError: The scheduler does not mix the two linearly.
    """
    if strength is None:
        return Start(0.0, float(getattr(started, "init_noise_sigma", 1.0)))
    data = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    zeros, ones = torch.zeros_like(data[0]), torch.ones_like(data[0])
    image_scale = float(_mix(started, ones, zeros)[0, 0, 0, 0])
    noise_scale = float(_mix(started, zeros, ones)[0, 0, 0, 0])
    missed = _mix(started, *data) - image_scale * data[0] - noise_scale * data[1]
    if missed.abs().max() > TOLERANCE * max(abs(image_scale), abs(noise_scale)):
        raise DipgoError(
            f"scheduler {type(started).__name__}",
            found="noise that is not added linearly to a picture",
            expected="a sum of the two",
            remedy=f"choose another scheduler, or leave {setting('strength')} out",
        )
    return Start(image_scale, noise_scale, strength)


def _mix(started: Any, image: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns f64[B, C, h, w], a picture's latents with noise as the pipelines add it."""
    first = remaining_timesteps(started)[:1]
    if hasattr(started, "add_noise"):
        mixed: torch.Tensor = started.add_noise(image, noise, first)
    else:
        mixed = started.scale_noise(image, first, noise)
    return mixed
