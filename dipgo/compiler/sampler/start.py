"""Starts schedulers as diffusers' pipelines do, trajectories from a picture late.

Of N steps image-to-image runs the last share `strength`, from a picture's latents with noise on
them, as `get_timesteps` and `prepare_latents` of diffusers' image-to-image pipelines do. Those of
LCM spread N steps over the strength, and inpainting begins with pure noise at a strength of 1.

Source: Meng et al. 2022, SDEdit.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.sampler.calls import check_eta, check_has, check_takes, find_mixer, takes
from dipgo.ir.sampler import Start
from dipgo.models.loop import Loop

TOLERANCE = 1e-6
"""Relative tolerance of the linearity check."""

DEFAULT_LOOP = Loop()


@dataclass(frozen=True)  # without slots: the start is stored next to the fields
class Started:
    """A scheduler with its timesteps set, at the step from which it is to run.

    `timesteps` are those to be evaluated: all, unless the scheduler is to begin late. With
    `step_options` and, if `takes_generator`, a generator its steps are called. `strength` is None
    for a run from noise, else the scheduler's method `mixer` puts noise on the picture.
    """

    scheduler: Any
    timesteps: Any
    step_options: Mapping[str, Any]
    takes_generator: bool
    strength: float | None
    mixer: str = ""

    @property
    def eta(self) -> float:
        """How much noise the scheduler draws, 0 if its steps take no eta."""
        if not takes(self.scheduler, "eta"):
            return 0.0
        default = inspect.signature(self.scheduler.step).parameters["eta"].default
        return float(self.step_options.get("eta", default) or 0.0)

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

    @cached_property
    def scales_state(self) -> bool:
        """Whether the scheduler asks that the first noise, or the denoiser's input, be scaled."""
        if float(getattr(self.scheduler, "init_noise_sigma", 1.0)) != 1:
            return True
        if not hasattr(self.scheduler, "scale_model_input"):
            return False
        ones = torch.ones(1, 1, 1, 1)
        scaled = copy.deepcopy(self.scheduler).scale_model_input(ones, self.timesteps[0])
        return not torch.equal(scaled, ones)

    def _mix(self, image: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Returns f64[B, C, h, w], a picture's latents with noise as the pipelines add it."""
        first = self.timesteps[:1]
        if self.mixer == "scale_noise":
            mixed: torch.Tensor = self.scheduler.scale_noise(image, first, noise)
        else:
            mixed = self.scheduler.add_noise(image, noise, first)
        return mixed


def start_scheduler(
    scheduler: Any,
    num_inference_steps: int,
    loop: Loop = DEFAULT_LOOP,
    *,
    eta: float | None = None,
    strength: float | None = None,
) -> Started:
    """Starts a copy of the scheduler.

    Args:
        scheduler: A diffusers scheduler.
        num_inference_steps: The number of steps.
        loop: How the pipeline calls the scheduler.
        eta: How much noise a scheduler that takes an eta draws; None for what the pipeline says.
        strength: If not None, the run begins where the pipeline begins with a picture.

    Raises:
        DipgoError: The scheduler refuses the steps or the options, takes no eta, or cannot be
            called as the pipeline does.
    """
    check_eta(scheduler, eta)
    check_has(scheduler, loop)
    if loop.needs_generator:
        check_takes(scheduler, "step", ("generator",), loop)
    fresh = copy.deepcopy(scheduler)
    _set_timesteps(fresh, num_inference_steps, loop, strength)
    if strength == 1 and loop.paints:
        strength = None
    mixer = "" if strength is None else find_mixer(fresh, loop)
    begin = 0
    if loop.paints or (strength is not None and not loop.spreads_steps):
        share = 1.0 if strength is None else strength
        begin = _begin_at(fresh, num_inference_steps, share, rounds_up=mixer == "scale_noise")
    named = {"eta": eta} if eta is not None else {}
    options = {**loop.step_options, **named}
    return Started(
        fresh,
        fresh.timesteps[begin:],
        {name: value for name, value in options.items() if takes(fresh, name)},
        takes_generator=takes(fresh, "generator"),
        strength=strength,
        mixer=mixer,
    )


def _set_timesteps(fresh: Any, steps: int, loop: Loop, strength: float | None) -> None:
    """Sets the timesteps as the pipeline does.

    Raises:
        DipgoError: The scheduler refuses the steps or the options.
    """
    options = dict(loop.timestep_options)
    if loop.spreads_steps and strength is not None:
        _check_strength(strength)
        options["strength"] = strength
    check_takes(fresh, "set_timesteps", options, loop)
    number = () if "sigmas" in options else (steps,)
    try:
        fresh.set_timesteps(*number, **options)
    except Exception as error:  # a scheduler may refuse in its own way
        raise DipgoError(
            f"{type(fresh).__name__}.set_timesteps({steps})",
            found=f"{type(error).__name__}: {error}",
            expected="a number of steps, and options, that the scheduler takes",
            remedy="choose another number of steps, or another scheduler",
        ) from error
    if not len(fresh.timesteps):
        raise DipgoError(
            f"{type(fresh).__name__}.set_timesteps({steps})",
            found="no timestep",
            expected="at least one",
            remedy="take more steps",
        )


def _begin_at(started: Any, steps: int, strength: float, *, rounds_up: bool) -> int:
    """Returns the index of the timestep from which a scheduler is to run, and tells it so.

    The scheduler keeps all its timesteps, in which it may look them up.

    Raises:
        DipgoError: The strength leaves no step.
    """
    first = _first_step(steps, strength, rounds_up)
    begin = first * getattr(started, "order", 1)
    if hasattr(started, "set_begin_index"):
        started.set_begin_index(begin)
    return begin


def _check_strength(strength: float) -> None:
    """Checks that the strength is a share of the steps.

    Raises:
        DipgoError: It is not.
    """
    if not 0 < strength <= 1:
        raise DipgoError(
            setting("strength"),
            found=f"{strength:g}",
            expected="a share of the steps above 0, at most 1",
            remedy="0.6 for example runs the last 60 of 100 steps",
        )


def _first_step(steps: int, strength: float, rounds_up: bool) -> int:
    """Returns the first step; pipelines of flow-matching models round the rest up."""
    _check_strength(strength)
    first = int(max(steps - steps * strength, 0)) if rounds_up else steps - int(steps * strength)
    if first >= steps:
        raise DipgoError(
            setting("strength"),
            found=f"{strength:g} of {steps} steps, which is none",
            expected="at least one step",
            remedy="choose a larger strength, or more steps",
        )
    return first
