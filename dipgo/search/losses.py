"""Distances between the ends of a pruned and a dense trajectory.

Source: DiP-GO (arXiv 2410.16942), section 3.4 and table 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dipgo.search.settings import Loss

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of (pruned, dense), each f32[B, C, H, W], to f32[]."""

LEAST_ERROR = 1e-8
"""The error added under the logarithm, which keeps it finite where nothing is pruned."""

SIGMA = 1.5
"""The sigma of SSIM's Gaussian window, 11 wide (Wang et al. 2004), as in DiP-GO."""


def ssim_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Returns 1 − SSIM; the range is that of the dense pictures, so latents suffice too."""
    span = float(dense.max() - dense.min()) or 1.0
    similarity = structural_similarity_index_measure(
        pruned, dense, sigma=SIGMA, data_range=span, gaussian_kernel=True
    )
    assert isinstance(similarity, Tensor)
    return 1 - similarity


def l1_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Returns the mean absolute error."""
    return (pruned - dense).abs().mean()


def l2_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Returns the mean squared error."""
    return (pruned - dense).square().mean()


def log_mse_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Returns the mean over the batch of log10 of each mean squared error.

    Every picture has the same weight. The gradient does not vanish with the error, so that the
    cheapest gates go first while there are many, and the least harmful ones while there are few.
    """
    error = (pruned - dense).square().flatten(1).mean(1)
    return torch.log10(error + LEAST_ERROR).mean()


def log_l2_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Returns log10 of the batch's mean squared error: the picture furthest off weighs most."""
    return torch.log10(l2_distance(pruned, dense) + LEAST_ERROR)


def _ssim_and_l1(pruned: Tensor, dense: Tensor) -> Tensor:
    return ssim_distance(pruned, dense) + l1_distance(pruned, dense)


DISTANCES: dict[Loss, Distance] = {
    "log-l2": log_l2_distance,
    "log-mse": log_mse_distance,
    "ssim": ssim_distance,
    "l1": l1_distance,
    "l2": l2_distance,
    "ssim+l1": _ssim_and_l1,
}


def without_logarithm(loss: Loss) -> Loss:
    """Returns the loss to judge choices by: never negative, so sums over examples only grow."""
    return "l2" if loss in ("log-l2", "log-mse") else loss
