"""Reads a diffusers scheduler's arithmetic off as a linear map, by running it on a basis."""

import copy
from typing import Any

import torch

from dipgo.recurrence import find_recurrence
from dipgo.sampler import PriorNoise, Sampler
from dipgo.sampler_check import check_linear
from dipgo.scheduler_names import make_scheduler
from dipgo.scheduler_run import run_scheduler, start_scheduler

__all__ = ["init_noise_sigma", "make_scheduler", "probe", "read_coefficients"]


def probe(
    scheduler: Any,
    num_inference_steps: int,
    *,
    prior_noise: PriorNoise | None = None,
    **options: Any,
) -> Sampler:
    """The recurrence that a diffusers scheduler performs in `num_inference_steps` steps.

    `options` go to the scheduler's `set_timesteps` (`mu`, `sigmas`, …). The noise is what
    diffusers calls the initial latents, the scheduler's `init_noise_sigma` already in it.
    Coefficients are float64: the scheduler's tables as they are, without the roundings of its
    casts of the latents to float32. docs/design.md, stage 4.

    Raises DipgoError where the scheduler cannot be run so, draws noise, or is not linear.
    """
    started = start_scheduler(scheduler, num_inference_steps, options)
    evaluated, table = read_coefficients(started, prior_noise)
    check_linear(started, table, prior_noise)
    timesteps = tuple(dict.fromkeys(evaluated))
    *inputs, result = find_recurrence(table.numpy(), with_noise=prior_noise is not None)
    return Sampler(
        scheduler_class=type(scheduler).__name__,
        num_inference_steps=num_inference_steps,
        timesteps=timesteps,
        rows=tuple(timesteps.index(timestep) for timestep in evaluated),
        inputs=tuple(inputs),
        result=result,
    )


def init_noise_sigma(scheduler: Any, num_inference_steps: int) -> float:
    """What noise of unit variance is scaled by; 1 for flow matching, which has none.

    Some schedulers know it only with their timesteps set.
    """
    if not hasattr(scheduler, "init_noise_sigma"):
        return 1.0
    started = copy.deepcopy(scheduler)
    started.set_timesteps(num_inference_steps)
    return float(started.init_noise_sigma)


def read_coefficients(
    started: Any, prior_noise: PriorNoise | None = None
) -> tuple[list[float], torch.Tensor]:
    """The timestep of each of E evaluations, and the coefficients of all inputs: f64[E + 1, 1 + E].

    Row i has those of input i over the basis [initial noise, output 0, output 1, …]; the last
    row has those of the final latents. `started` is a scheduler with its timesteps set.
    """
    size = 1 + len(started.timesteps)
    basis = torch.eye(size, dtype=torch.float64).reshape(size, 1, 1, 1, size)
    run = run_scheduler(
        started, basis[0], lambda index, _: basis[1 + index].clone(), prior_noise=prior_noise
    )
    return run.timesteps, torch.stack([*run.inputs, run.result]).reshape(size, size)
