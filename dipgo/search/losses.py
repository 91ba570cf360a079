"""How far the pruned trajectory's end is from the dense one's. DiP-GO, section 3.4 and table 6."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dipgo.search.settings import Loss

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(pruned, dense), each f32[B, C, H, W], to f32[]."""

LEAST_ERROR = 1e-8
"""Keeps the logarithm finite where nothing is pruned."""

SIGMA = 1.5
"""Of SSIM's Gaussian window, 11 wide (Wang et al. 2004), as DiP-GO has it."""


def ssim_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """1 − SSIM; the range is the dense picture's own, so that latents will do too."""
    span = float(dense.max() - dense.min()) or 1.0
    similarity = structural_similarity_index_measure(
        pruned, dense, sigma=SIGMA, data_range=span, gaussian_kernel=True
    )
    assert isinstance(similarity, Tensor)
    return 1 - similarity


def l1_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Mean absolute error."""
    return (pruned - dense).abs().mean()


def l2_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Mean squared error."""
    return (pruned - dense).square().mean()


def log_mse_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Mean over the batch of log10 of the squared error: every picture weighs alike.

    Its gradient does not vanish with the error, so that the cheapest gates go first while there
    are many, and the least harmful ones while there are few.
    """
    error = (pruned - dense).square().flatten(1).mean(1)
    return torch.log10(error + LEAST_ERROR).mean()


def log_l2_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """log10 of the mean squared error of the batch: a picture that goes astray weighs most."""
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
    """The loss to judge choices by: never negative, so that sums over examples only grow."""
    return "l2" if loss in ("log-l2", "log-mse") else loss
