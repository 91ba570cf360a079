"""Starts schedulers as diffusers' pipelines do, image-to-image trajectories late.

Of N steps image-to-image runs the last share `strength`, from a picture's latents with noise on
them, as `get_timesteps` and `prepare_latents` of diffusers' image-to-image pipelines do.

Source: Meng et al. 2022, SDEdit.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from dipgo.common.errors import DipgoError, setting
from dipgo.ir.sampler import Start

TOLERANCE = 1e-6
"""Relative tolerance of the linearity check."""


@dataclass(frozen=True)  # without slots: the start is stored next to the fields
class Started:
    """A scheduler with its timesteps set, at the step from which it is to run.

    `timesteps` are those to be evaluated: all, unless the scheduler is to begin late. `eta` is None
    for a scheduler whose steps take none, `strength` for a run from noise.
    """

    scheduler: Any
    timesteps: Any
    eta: float | None
    takes_generator: bool
    strength: float | None

    @cached_property
    def start(self) -> Start:
        """The way in which noise, and with a strength a picture's latents, become the first state.

        Raises:
            DipgoError: The scheduler does not mix the two linearly.
        """
        if self.strength is None:
            return Start(0.0, float(getattr(self.scheduler, "init_noise_sigma", 1.0)))
        data = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
        zeros, ones = torch.zeros_like(data[0]), torch.ones_like(data[0])
        image_scale = float(self._mix(ones, zeros)[0, 0, 0, 0])
        noise_scale = float(self._mix(zeros, ones)[0, 0, 0, 0])
        missed = self._mix(*data) - image_scale * data[0] - noise_scale * data[1]
        if missed.abs().max() > TOLERANCE * max(abs(image_scale), abs(noise_scale)):
            raise DipgoError(
                f"scheduler {type(self.scheduler).__name__}",
                found="noise that is not added linearly to a picture",
                expected="a sum of the two",
                remedy=f"choose another scheduler, or leave {setting('strength')} out",
            )
        return Start(image_scale, noise_scale, self.strength)

    def _mix(self, image: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Returns f64[B, C, h, w], a picture's latents with noise as the pipelines add it."""
        first = self.timesteps[:1]
        if hasattr(self.scheduler, "add_noise"):
            mixed: torch.Tensor = self.scheduler.add_noise(image, noise, first)
        else:
            mixed = self.scheduler.scale_noise(image, first, noise)
        return mixed


def start_scheduler(
    scheduler: Any,
    num_inference_steps: int,
    options: dict[str, Any],
    *,
    eta: float = 0.0,
    strength: float | None = None,
) -> Started:
    """Starts a copy of the scheduler.

    Args:
        scheduler: A diffusers scheduler.
        num_inference_steps: The number of steps.
        options: Further arguments of `set_timesteps`.
        eta: How much noise a scheduler that takes an eta draws.
        strength: If not None, the run begins where image-to-image of this strength begins.

    Raises:
        DipgoError: The scheduler refuses the steps or the options, or takes no eta.
    """
    _check_eta(scheduler, eta)
    fresh = copy.deepcopy(scheduler)
    try:
        fresh.set_timesteps(num_inference_steps, **options)
    except Exception as error:  # a scheduler may refuse in its own way
        raise DipgoError(
            f"{type(scheduler).__name__}.set_timesteps({num_inference_steps})",
            found=f"{type(error).__name__}: {error}",
            expected="a number of steps, and options, that the scheduler takes",
            remedy="choose another number of steps, or another scheduler",
        ) from error
    if strength is not None:
        _begin_at(fresh, num_inference_steps, strength)
    timesteps = fresh.timesteps[getattr(fresh, "begin_index", None) or 0 :]
    return Started(
        fresh,
        timesteps,
        eta=eta if takes(fresh, "eta") else None,
        takes_generator=takes(fresh, "generator"),
        strength=strength,
    )


def _check_eta(scheduler: Any, eta: float) -> None:
    """Checks that eta is in 0..1, and above 0 only for a scheduler that uses it.

    Raises:
        DipgoError: It is not.
    """
    if not 0 <= eta <= 1:
        raise DipgoError(
            setting("eta"),
            found=f"{eta:g}",
            expected="a number from 0 to 1",
            remedy="1 draws as much noise as DDPM does, 0 none",
        )
    if eta > 0 and not takes(scheduler, "eta"):
        raise DipgoError(
            setting("eta"),
            found=f"{eta:g} for {type(scheduler).__name__}, which has none",
            expected="a scheduler whose steps take an eta, ddim for example",
            remedy=f"leave {setting('eta')} out, or choose ddim",
        )


def takes(scheduler: Any, option: str) -> bool:
    """Returns whether the scheduler's step has this argument, as diffusers' pipelines ask it."""
    step = getattr(scheduler, "step", None)
    return step is not None and option in inspect.signature(step).parameters


def _begin_at(started: Any, steps: int, strength: float) -> None:
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
