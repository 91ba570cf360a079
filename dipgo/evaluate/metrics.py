"""Metrics of pictures and latents, pair by pair, against the dense ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

CONFIDENCE = 0.95

RESAMPLES = 10_000

SEED = 0

METHOD = f"bootstrap percentiles, {RESAMPLES} resamples of the pairs, seed {SEED}"

_RESAMPLES_AT_ONCE = 500
"""Resamples at a time: their indices need not all be in memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean over the pairs and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Of f64[pairs]; resamples depend on their number alone, so they are the same pairs for all.

    A difference of two SubNets' values is thus paired twice: pair by pair, and in its resamples.
    Values of which one is infinite (PSNR of equal pictures) have no interval: all three are inf.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    given = np.asarray(values, np.float64)
    if not np.isfinite(given).all():
        return Interval(np.inf, np.inf, np.inf)
    generator = np.random.default_rng(SEED)
    count = len(given)
    means = [
        given[generator.integers(0, count, (_RESAMPLES_AT_ONCE, count))].mean(axis=1)
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Interval(float(given.mean()), float(low), float(high))


_CHUNK = 16
"""Pictures at a time: SSIM takes several times their memory."""


def ssim(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity f64[N] of pictures u8[N, H, W, 3], 1 where they are equal.

    Gaussian windows of standard deviation 1.5 (Wang et al. 2004), mean over the channels.
    """
    return _by_chunks(
        lambda one, other: structural_similarity_index_measure(
            one, other, data_range=1.0, reduction="none"
        ),
        *(found, expected),
    )


def psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB, f64[N], of u8[N, H, W, 3]; infinite where they are equal"""
    return _by_chunks(
        lambda one, other: peak_signal_noise_ratio(
            one, other, data_range=1.0, reduction="none", dim=(1, 2, 3)
        ),
        *(found, expected),
    )


def latent_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """‖z - z_dense‖ / ‖z_dense‖ f64[N] of latents f32[N, C, h, w], over all elements of each."""
    z, dense = (one.reshape(len(one), -1).astype(np.float64) for one in (found, expected))
    error: NDArray[np.float64] = np.linalg.norm(z - dense, axis=1) / np.linalg.norm(dense, axis=1)
    return error


def to_tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """u8[N, H, W, 3] to u8[N, 3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def _by_chunks(
    metric: Callable[[torch.Tensor, torch.Tensor], Any],
    found: NDArray[np.uint8],
    expected: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """The metric of f32[n, 3, H, W] in [0, 1], a few at a time: f64[N]."""
    values = []
    for start in range(0, len(found), _CHUNK):
        rows = slice(start, start + _CHUNK)
        of_chunk = metric(*(to_tensor(one[rows]).float() / 255 for one in (found, expected)))
        values.append(of_chunk.double().numpy().reshape(-1))
    return np.concatenate(values)
