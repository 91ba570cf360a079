"""Speedups: the median of paired ratios, on machines that do other work meanwhile."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dipgo.engines.ratios import CONFIDENCE, ENOUGH_PAIRS, paired_ratio

SECONDS = st.floats(1e-4, 1e3)


@given(st.integers(1, 60))
def test_the_interval_is_the_narrowest_that_reaches_the_confidence(count: int) -> None:
    """Ranks of the bounds, against scipy's binomial distribution of values below the median."""
    ratio = paired_ratio([float(rank) for rank in range(1, count + 1)], [1.0] * count)
    low, high = round(ratio.low), round(ratio.high)
    assert low == count + 1 - high
    assert ratio.confidence == pytest.approx(1 - 2 * binom.cdf(low - 1, count, 0.5))
    assert (ratio.confidence >= CONFIDENCE) == (count >= ENOUGH_PAIRS)
    one_less = 1 - 2 * binom.cdf(low, count, 0.5)
    assert low == 1 if count < ENOUGH_PAIRS else one_less < CONFIDENCE


@given(st.lists(st.tuples(SECONDS, SECONDS, st.floats(1, 100)), min_size=1, max_size=20))
def test_what_slows_both_of_a_pair_changes_nothing(turns: list[tuple[float, float, float]]) -> None:
    """A machine that is busier at some turns than at others, however much."""
    idle = paired_ratio([above for above, _, _ in turns], [below for _, below, _ in turns])
    busy = paired_ratio([a * load for a, _, load in turns], [b * load for _, b, load in turns])
    assert busy.median == pytest.approx(idle.median)
    assert (busy.low, busy.high) == pytest.approx((idle.low, idle.high))


def test_loaded_machines_give_the_speedup_where_medians_give_another() -> None:
    """Drawn loads, some of which last for several runs: a true speedup of 4."""
    generator = np.random.default_rng(0)
    errors, errors_of_medians = [], []
    for _ in range(200):
        load = np.repeat(generator.choice([1.0, 1.5, 3.0], 6), 3)[generator.integers(3) :][:14]
        noise = np.exp(generator.normal(0, 0.03, 14))
        dense, subnet = 4 * (load * noise)[::2], (load * noise)[1::2]
        errors.append(abs(paired_ratio(list(dense), list(subnet)).median / 4 - 1))
        errors_of_medians.append(abs(median(dense) / median(subnet) / 4 - 1))
    assert np.mean(np.array(errors) > 0.1) < 0.01
    assert np.mean(np.array(errors_of_medians) > 0.1) > 0.2


@pytest.mark.parametrize("count", [6, 9, 20])
def test_the_interval_holds_the_true_median_as_often_as_it_says(count: int) -> None:
    """Of ratios whose distribution is skewed and has a long tail."""
    generator = np.random.default_rng(count)
    drawn = 3 * np.exp(generator.standard_t(2, (4000, count)) / 10)
    ratios = [paired_ratio(list(turns), [1.0] * count) for turns in drawn]
    inside = np.mean([ratio.low <= 3 <= ratio.high for ratio in ratios])
    assert inside == pytest.approx(ratios[0].confidence, abs=0.012)


def test_one_pair_has_no_interval() -> None:
    ratio = paired_ratio([3.0], [1.5])
    assert (ratio.median, ratio.low, ratio.high, ratio.confidence) == (2, 2, 2, 0)
    assert ratio.text(".2f", "×") == "2.00×"
    assert "no interval" in ratio.note()
    assert ratio.over(4).median == 0.5
    assert paired_ratio([2.0, 4.0], [1.0, 1.0]).text(".1f", "×") == "3.0× [2.0, 4.0]"
