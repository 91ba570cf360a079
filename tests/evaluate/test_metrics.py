"""Metrics of pictures and their intervals, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dipgo.evaluate.metrics import interval, psnr, ssim
from tests.support.independent_metrics import independent_psnr, independent_ssim
from tests.support.tiny_evaluation import (
    random_pictures,
)


def test_metrics_of_random_pictures() -> None:
    found, expected = random_pictures(20), random_pictures(20, seed=1)
    both = list(zip(found, expected, strict=True))
    assert ssim(found, expected) == pytest.approx(
        [independent_ssim(*one) for one in both], abs=1e-4
    )
    assert psnr(found, expected) == pytest.approx(
        [independent_psnr(*one) for one in both], rel=1e-5
    )
    assert np.isinf(psnr(found, found)).all()


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.1, 64)
    found = interval(values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)
    error = stats.sem(values)
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, len(values) - 1, values.mean(), error), abs=error / 5
    )
    assert found.mean == pytest.approx(values.mean())


def test_intervals_without_a_spread_or_with_infinity() -> None:
    same = interval([0.5] * 8)
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    assert interval([30.0, np.inf]).low == np.inf
