"""Greedy removal of the least losses."""

from __future__ import annotations

import numpy as np

from dipgo.schedules.greedy import greedy
from tests.support.tiny_schedules import (
    dense_subnet,
    row_strings,
)


def test_greedy_takes_the_least_losses_out() -> None:
    dense = dense_subnet(("mid_block", "up_blocks.0"), 3)
    losses = np.array([[0.0, 0.0], [3.0, 1.0], [2.0, 4.0]])
    assert row_strings(greedy(dense, losses, 2)) == ["11", "10", "01"]
