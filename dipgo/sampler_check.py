"""Refuses schedulers that are not a fixed linear map: those that draw noise, clip or threshold."""

from typing import Any

import torch

from dipgo.errors import DipgoError
from dipgo.sampler import PriorNoise
from dipgo.scheduler_run import run_scheduler

SCALES = (0.0, 1.0, 1e2, 1e4)  # of the random data, one a sample: clipping shows at size only
TOLERANCE = 1e-9  # of the largest value in a sample: what linearity may miss in float64
BENDING = ("clip_sample", "thresholding")  # options that make a scheduler non-linear
LINEAR = "ddim, pndm, dpm++, euler, unipc, deis, lms, heun, kdpm2 or flow-euler"


def check_linear(started: Any, table: torch.Tensor, prior_noise: PriorNoise | None = None) -> None:
    """Run a started scheduler on random data; DipgoError where `table` does not foretell it.

    Row i of the table, f64[E + 1, 1 + E], has the coefficients of input i over [noise, output
    0, output 1, …], its last row those of the final latents.
    """
    data = _make_data(len(started.timesteps))
    first, second = (_run_seeded(started, data, seed, prior_noise) for seed in (0, 1))
    if not torch.equal(first, second):
        raise _random(started)
    wanted = torch.tensordot(table, data, dims=1)
    missed = (first - wanted).abs().amax(dim=(0, 2, 3, 4))
    if not (missed <= TOLERANCE * wanted.abs().amax(dim=(0, 2, 3, 4))).all():
        raise _nonlinear(started)


def _random(started: Any) -> DipgoError:
    return DipgoError(
        f"scheduler {type(started).__name__}",
        found="noise drawn during sampling",
        expected="a deterministic scheduler, whose steps can be exported",
        remedy=f"choose one of {LINEAR}",
    )


def _nonlinear(started: Any) -> DipgoError:
    options = [option for option in BENDING if started.config.get(option)]
    named = " and ".join(f"{option}=True" for option in options)
    remedy = f"choose one of {LINEAR}"
    if options:
        remedy = f"set {' and '.join(options)} to false in the scheduler's config"
    return DipgoError(
        f"scheduler {type(started).__name__}",
        found=f"steps that are not linear in the model's outputs{named and ', from ' + named}",
        expected="a linear scheduler, whose steps can be exported as sums",
        remedy=remedy,
    )


def _make_data(evaluations: int) -> torch.Tensor:
    """f64[1 + E, B, 2, 4, 4]: an initial noise and an output for each evaluation, B scales."""
    generator = torch.Generator("cpu").manual_seed(2410)
    shape = (1 + evaluations, len(SCALES), 2, 4, 4)
    data = torch.randn(shape, generator=generator, dtype=torch.float64)
    return data * torch.tensor(SCALES, dtype=torch.float64).reshape(-1, 1, 1, 1)


def _run_seeded(
    started: Any, data: torch.Tensor, seed: int, prior_noise: PriorNoise | None
) -> torch.Tensor:
    """f64[E + 1, B, 2, 4, 4]: every input, and the final latents."""
    run = run_scheduler(
        started,
        data[0],
        lambda index, _: data[1 + index].clone(),
        seed=seed,
        prior_noise=prior_noise,
    )
    return torch.stack([*run.inputs, run.result])
