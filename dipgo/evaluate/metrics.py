"""Metrics of pictures and latents, pair by pair, against dense's."""

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
"""Resamples at a time, so that their indices are not all in memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean over the pairs, and the bounds between which it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Returns the mean of f64[pairs] and its bootstrap confidence interval.

    Resamples depend on the number of pairs alone, so they are the same pairs for all SubNets. A
    difference of two SubNets' values is thus paired twice: pair by pair, and in its resamples. If a
    value is infinite (PSNR of equal pictures) there is no interval: mean and bounds are inf.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    sample = np.asarray(values, np.float64)
    if not np.isfinite(sample).all():
        return Interval(np.inf, np.inf, np.inf)
    generator = np.random.default_rng(SEED)
    count = len(sample)
    means = [
        sample[generator.integers(0, count, (_RESAMPLES_AT_ONCE, count))].mean(axis=1)
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Interval(float(sample.mean()), float(low), float(high))


_CHUNK = 16
"""Pictures at a time, since SSIM takes several times their memory."""


def ssim(pictures: NDArray[np.uint8], expected: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the structural similarity f64[N] of pictures u8[N, H, W, 3], 1 where they are equal.

    Windows are Gaussian with standard deviation 1.5; the result is the mean over the channels.

    Source:
        Wang et al. 2004.
    """
    return _by_chunks(
        lambda drawn, dense: structural_similarity_index_measure(
            drawn, dense, data_range=1.0, reduction="none"
        ),
        *(pictures, expected),
    )


def psnr(pictures: NDArray[np.uint8], expected: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the peak signal-to-noise ratio in dB, f64[N], of pictures u8[N, H, W, 3].

    It is infinite where the pictures are equal.
    """
    return _by_chunks(
        lambda drawn, dense: peak_signal_noise_ratio(
            drawn, dense, data_range=1.0, reduction="none", dim=(1, 2, 3)
        ),
        *(pictures, expected),
    )


def latent_error(
    latents: NDArray[np.float32], expected: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns ‖z - z_dense‖ / ‖z_dense‖ f64[N] of latents f32[N, C, h, w], over all elements."""
    z, dense = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (latents, expected))
    error: NDArray[np.float64] = np.linalg.norm(z - dense, axis=1) / np.linalg.norm(dense, axis=1)
    return error


def to_tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Returns pictures u8[N, H, W, 3] as u8[N, 3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def _by_chunks(
    metric: Callable[[torch.Tensor, torch.Tensor], Any],
    pictures: NDArray[np.uint8],
    expected: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """Returns f64[N] of a metric that takes f32[n, 3, H, W] in [0, 1], a few pictures at a time."""
    values = []
    for start in range(0, len(pictures), _CHUNK):
        rows = slice(start, start + _CHUNK)
        of_chunk = metric(*(to_tensor(side[rows]).float() / 255 for side in (pictures, expected)))
        values.append(of_chunk.double().numpy().reshape(-1))
    return np.concatenate(values)
