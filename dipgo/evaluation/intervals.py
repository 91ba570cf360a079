"""Confidence intervals of means over pairs: the bootstrap's percentiles, the same draws for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0
METHOD = f"bootstrap percentiles, {RESAMPLES} resamples of the pairs, seed {SEED}"
_CHUNK = 500
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
        given[generator.integers(0, count, (_CHUNK, count))].mean(axis=1)
        for _ in range(RESAMPLES // _CHUNK)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Interval(float(given.mean()), float(low), float(high))
