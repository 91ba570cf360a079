"""Reads a diffusers scheduler's arithmetic off as a linear map, by running it on a basis."""

from typing import Any, NamedTuple

import torch

from dipgo.compiler.sampler.image_to_image import find_start, remaining_timesteps
from dipgo.compiler.sampler.linearity import check_eta, check_linear
from dipgo.compiler.sampler.recurrence import find_recurrence
from dipgo.compiler.sampler.schedulers import make_scheduler, public_config
from dipgo.compiler.sampler.trajectory import run_scheduler, start_scheduler
from dipgo.ir.sampler import PriorNoise, Sampler

__all__ = ["make_scheduler", "probe", "read_coefficients"]


def probe(
    scheduler: Any,
    num_inference_steps: int,
    *,
    eta: float = 0.0,
    prior_noise: PriorNoise | None = None,
    strength: float | None = None,
    **options: Any,
) -> Sampler:
    """Returns the recurrence that a diffusers scheduler performs in `num_inference_steps` steps.

    The noise is what diffusers calls the initial latents, the scheduler's `init_noise_sigma`
    already in it; what is drawn later has unit variance. Coefficients are float64: the scheduler's
    tables as they are, without the roundings of its casts of the latents to float32
    (docs/internals/design.md, stage 4).

    Args:
        scheduler: A diffusers scheduler.
        num_inference_steps: The number of steps.
        eta: Passed to the scheduler's steps, as Stable Diffusion's pipelines do it.
        prior_noise: The noise that the loop adds again, if any.
        strength: If not None, only the last share of the steps is run, and the noise is a picture's
            latents with noise on them.
        **options: Further arguments of the scheduler's `set_timesteps` (`mu`, `sigmas`, …).

    Raises:
        DipgoError: The scheduler cannot be run so, takes no eta, draws other noise than the
            pipeline's, or is not linear.
    """
    check_eta(scheduler, eta)
    started = start_scheduler(scheduler, num_inference_steps, options, strength)
    evaluated, table, draws = read_coefficients(started, eta, prior_noise)
    check_linear(started, table, eta, prior_noise)
    timesteps = tuple(dict.fromkeys(evaluated))
    *inputs, result = find_recurrence(
        table.numpy(), with_noise=prior_noise is not None, draws=draws
    )
    return Sampler(
        scheduler_class=type(scheduler).__name__,
        num_inference_steps=num_inference_steps,
        timesteps=timesteps,
        rows=tuple(timesteps.index(timestep) for timestep in evaluated),
        inputs=tuple(inputs),
        result=result,
        eta=eta,
        start=find_start(started, strength),
        config=public_config(scheduler),
    )


class Coefficients(NamedTuple):
    """The coefficients of E evaluations with D draws of noise, as `read_coefficients` reads them.

    `timesteps` has that of each evaluation, `draws` the evaluation after which each was made.
    `table` is f64[E + 1, 1 + E + D]: row i has the coefficients of input i over the basis [initial
    noise, output 0, output 1, …, draw 1, draw 2, …], the last row those of the final latents.
    """

    timesteps: list[float]
    table: torch.Tensor
    draws: list[int]


def read_coefficients(
    started: Any, eta: float = 0.0, prior_noise: PriorNoise | None = None
) -> Coefficients:
    """Reads the coefficients off a scheduler with its timesteps set, by running it on the basis."""
    evaluations = len(remaining_timesteps(started))
    size = 1 + evaluations + _count_draws(started, eta)
    basis = torch.eye(size, dtype=torch.float64).reshape(size, 1, 1, 1, size)
    run = run_scheduler(
        started,
        basis[0],
        lambda index, _: basis[1 + index].clone(),
        draw=lambda index: basis[evaluations + index].clone(),
        eta=eta,
        prior_noise=prior_noise,
    )
    table = torch.stack([*run.inputs, run.result]).reshape(evaluations + 1, size)
    return Coefficients(run.timesteps, table, run.draws)


def _count_draws(started: Any, eta: float) -> int:
    """Returns how often a trajectory draws noise: the timesteps alone decide that."""
    ones = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    run = run_scheduler(
        started, ones, lambda index, _: ones.clone(), draw=lambda index: ones.clone(), eta=eta
    )
    return len(run.draws)
