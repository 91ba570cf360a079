"""Refuses schedulers that are not a fixed linear map, such as those that clip or threshold."""

from typing import Any

import torch

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.sampler.image_to_image import remaining_timesteps
from dipgo.compiler.sampler.trajectory import run_scheduler, takes
from dipgo.ir.sampler import PriorNoise

SCALES = (0.0, 1.0, 1e2, 1e4)  # of the samples of random data: clipping shows in large ones only

TOLERANCE = 1e-9  # of the linearity check in float64, relative to a sample's largest value

BENDING = (
    "clip_sample",
    "clip_denoised",
    "thresholding",
)  # options that make a scheduler non-linear

LINEAR = "ddim, pndm, dpm++, euler, euler-a, unipc, deis, lms, heun, kdpm2, lcm or flow-euler"


def check_eta(scheduler: Any, eta: float) -> None:
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


def check_linear(
    started: Any, table: torch.Tensor, eta: float = 0.0, prior_noise: PriorNoise | None = None
) -> None:
    """Runs a started scheduler on random data and compares the outcome with `table`.

    Args:
        started: A scheduler with its timesteps set.
        table: f64[E + 1, 1 + E + D]. Row i has the coefficients of input i over [noise, output 0,
            output 1, …, draw 1, draw 2, …], the last row those of the final latents.
        eta: The eta to run the scheduler with.
        prior_noise: The noise that the loop adds again, if any.

    Raises:
        DipgoError: The table does not predict what the scheduler does.
    """
    evaluations = len(remaining_timesteps(started))
    data = _make_data(table.shape[1])
    run = run_scheduler(
        started,
        data[0],
        lambda index, _: data[1 + index].clone(),
        draw=lambda index: data[evaluations + index].clone(),
        eta=eta,
        prior_noise=prior_noise,
    )
    outcome = torch.stack([*run.inputs, run.result])
    wanted = torch.tensordot(table, data, dims=1)
    missed = (outcome - wanted).abs().amax(dim=(0, 2, 3, 4))
    if not (missed <= TOLERANCE * wanted.abs().amax(dim=(0, 2, 3, 4))).all():
        raise _nonlinear(started)


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


def _make_data(size: int) -> torch.Tensor:
    """Returns f64[size, B, 2, 4, 4]: noise, an output for each evaluation, draws; B scales."""
    generator = torch.Generator("cpu").manual_seed(2410)
    shape = (size, len(SCALES), 2, 4, 4)
    data = torch.randn(shape, generator=generator, dtype=torch.float64)
    return data * torch.tensor(SCALES, dtype=torch.float64).reshape(-1, 1, 1, 1)
