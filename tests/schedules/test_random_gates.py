"""Random gates."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.schedules.random_gates import random_gates
from tests.support.tiny_schedules import (
    dense_subnet,
)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_random_gates_are_nested(one: float, other: float, seed: int) -> None:
    fewer, more = (random_gates(dense_subnet(), s, seed=seed) for s in sorted((one, other)))
    assert not (fewer.gates & ~more.gates).any()
    assert more.gates.sum() == max(int(max(one, other) * 450 + 1e-9), 9)
