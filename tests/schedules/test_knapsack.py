"""The knapsack against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.schedules.knapsack import choose_kept


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_knapsack_equals_brute_force(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    values = np.array(data.draw(st.lists(st.floats(0, 10), min_size=count, max_size=count)))
    weights = np.array(data.draw(st.lists(st.integers(0, 60), min_size=count, max_size=count)))
    budget = data.draw(st.integers(-5, 200))
    kept = choose_kept(values, weights, budget)
    choices = np.array(list(product([0, 1], repeat=count)))
    allowed = choices[choices @ weights <= max(budget, 0)] if budget >= 0 else choices[:1]
    assert weights[kept].sum() <= max(budget, 0)
    assert np.isclose(values[kept].sum(), (allowed @ values).max())


@given(st.lists(st.integers(10**6, 10**9), min_size=2, max_size=12), st.floats(0, 1))
@settings(deadline=None)
def test_coarse_knapsack_keeps_to_its_budget(macs: list[int], share: float) -> None:
    weights = np.array(macs)
    budget = int(share * weights.sum())
    kept = choose_kept(np.ones(len(macs)), weights, budget, cells=512)
    assert weights[kept].sum() <= budget
