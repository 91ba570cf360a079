"""Predictions of rows that compute, against a list that is written out."""

from __future__ import annotations

import random

import pytest

from dipgo.ir.subnet.past import Past


@pytest.mark.parametrize("seed", range(50))
def test_the_second_of_two_evaluations_of_a_row_counts(seed: int) -> None:
    draw = random.Random(seed)
    computes = [draw.random() < 0.6 for _ in range(4)]
    rows = [draw.randrange(4) for _ in range(12)]
    past: Past[int] = Past()
    for index, row in enumerate(rows):
        counted = [
            at
            for at, earlier in enumerate(rows[:index])
            if computes[earlier] and rows[at + 1] != earlier
        ]
        before = past.before(row)
        assert before == tuple(reversed(counted))
        past = past.after(row, (index, *before) if computes[row] else before)
