"""Reads a scheduler's coefficients off its runs; refuses one that is not a fixed linear map."""

from typing import Any

import torch

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.trajectory import Runs, Trajectory

TOLERANCE = 1e-9  # of the linearity check in float64, relative to a sample's largest value

BENDING = (
    "clip_sample",
    "clip_denoised",
    "thresholding",
)  # options that make a scheduler non-linear

LINEAR = "ddim, pndm, dpm++, euler, euler-a, unipc, deis, lms, heun, kdpm2, lcm or flow-euler"


def read_linear(scheduler: Any, runs: Runs) -> torch.Tensor:
    """Returns the coefficients of a scheduler, after a check that they predict what it does.

    Args:
        scheduler: The scheduler, for errors.
        runs: Its runs.

    Returns:
        f64[E + 1, 1 + E + D], as `coefficients` has it.

    Raises:
        DipgoError: Coefficients are not finite, or do not predict the run on random data: the
            scheduler clips or thresholds.
    """
    table = coefficients(runs.on_basis)
    outcome = torch.stack([*runs.on_data.inputs, runs.on_data.result])
    _check_numbers(scheduler, table)
    wanted = torch.tensordot(table, runs.data, dims=1)
    missed = (outcome - wanted).abs().amax(dim=(0, 2, 3, 4))
    if not (missed <= TOLERANCE * wanted.abs().amax(dim=(0, 2, 3, 4))).all():
        raise _nonlinear(scheduler)
    return table


def coefficients(on_basis: Trajectory) -> torch.Tensor:
    """Returns f64[E + 1, 1 + E + D] for a run on the basis of E evaluations with D draws.

    Row i has the coefficients of input i over the basis [initial noise, output 0, output 1, …,
    draw 1, draw 2, …], the last row those of the final latents.
    """
    return torch.stack([*on_basis.inputs, on_basis.result])[:, 0, 0, 0]  # channels are alike


def _check_numbers(scheduler: Any, table: torch.Tensor) -> None:
    """Checks coefficients f64[E + 1, basis], of which the last row is that of the final latents.

    Raises:
        DipgoError: They are not finite, and nor are diffusers' latents; or all in a row are 0, and
            the latents are the same whatever the noise and the predictions are.
    """
    for problem, is_wrong in (
        ("infinite or NaN numbers", ~table.isfinite().all(dim=1)),
        ("nothing but zeros", (table == 0).all(dim=1)),
    ):
        rows = is_wrong.nonzero().flatten().tolist()
        if rows:
            is_result = rows[0] == len(table) - 1
            raise DipgoError(
                f"scheduler {type(scheduler).__name__}",
                found=f"{problem} in "
                + ("the final latents" if is_result else f"the input of step {rows[0]}"),
                expected="finite numbers of noise and predictions at every step",
                remedy="choose other options of the scheduler, or another number of steps",
            )


def _nonlinear(scheduler: Any) -> DipgoError:
    options = [option for option in BENDING if scheduler.config.get(option)]
    named = " and ".join(f"{option}=True" for option in options)
    remedy = f"choose one of {LINEAR}"
    variance = str(scheduler.config.get("variance_type"))
    if variance.startswith("learned") and not options:
        named = f"variance_type={variance}, the variance that the model predicts"
        remedy = "choose a scheduler that leaves the variance out, such as dpm++"
    if options:
        remedy = f"set {' and '.join(options)} to false in the scheduler's config"
    return DipgoError(
        f"scheduler {type(scheduler).__name__}",
        found=f"steps that are not linear in the model's outputs{named and ', from ' + named}",
        expected="a linear scheduler, whose steps can be exported as sums",
        remedy=remedy,
    )
