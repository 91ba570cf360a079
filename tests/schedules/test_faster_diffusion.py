"""Faster Diffusion's key steps against its published ones."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.schedules.faster_diffusion import (
    DDIM_50_KEY_STEPS,
    DPM_20_KEY_STEPS,
    faster_diffusion_with,
    scale_key_steps,
)
from tests.support.tiny_schedules import (
    SD15,
    dense_subnet,
    full_rows,
    row_strings,
)


def test_key_steps_are_the_published_ones() -> None:
    for steps, published in [(50, DDIM_50_KEY_STEPS), (20, DPM_20_KEY_STEPS)]:
        subnet = faster_diffusion_with(dense_subnet(("conv_in", *SD15), steps), len(published))
        assert full_rows(subnet) == list(published)
        assert set(row_strings(subnet)) == {"1" * 10, "0000001111"}
    doubled = tuple(2 * key for key in DDIM_50_KEY_STEPS)
    assert scale_key_steps(DDIM_50_KEY_STEPS, 50, 100, 9) == doubled


@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
@settings(deadline=None)
def test_key_steps_are_as_many_as_asked_for(case_: tuple[int, int]) -> None:
    steps, count = case_
    keys = scale_key_steps(DDIM_50_KEY_STEPS, 50, steps, count)
    assert len(keys) == count
    assert keys[0] == 0
    assert all(before < after for before, after in pairwise(keys))
    assert keys[-1] < steps
