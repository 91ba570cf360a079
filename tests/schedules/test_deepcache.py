"""DeepCache's schedules against its published ones."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.schedules.deepcache import deepcache, deepcache_nonuniform, nonuniform_steps
from tests.support.tiny_schedules import (
    SD15,
    UP,
    dense_subnet,
    full_rows,
    row_strings,
)


def test_deepcache_runs_the_last_up_block_between_full_steps() -> None:
    subnet = deepcache(dense_subnet(("conv_in", *SD15)), 5)
    assert full_rows(subnet) == list(range(0, 50, 5))
    assert row_strings(subnet)[1] == "1000000001"
    assert row_strings(deepcache(dense_subnet(), 5, branch=1))[1] == "100000001"
    assert row_strings(deepcache(dense_subnet(), 5, branch=3))[1] == "100000011"
    assert row_strings(deepcache(dense_subnet(), 5, branch=5))[1] == "110000011"


def test_deepcache_branches_into_layers() -> None:
    """Branch 1: the first layer of the first down block, and the last two of the last up block."""
    kinds = ["resnets", "attentions"]
    layers = [
        *product(["down_blocks.0", "down_blocks.1"], kinds, range(2)),
        ("down_blocks.0", "downsamplers", 0),
        *product(["up_blocks.0", "up_blocks.1"], kinds, range(3)),
        ("up_blocks.0", "upsamplers", 0),
    ]
    blocks = tuple(f"{block}.{kind}.{layer}" for block, kind, layer in layers)
    last = {f"up_blocks.1.{kind}.2" for kind in kinds}
    middle = {f"up_blocks.1.{kind}.1" for kind in kinds}
    first = {f"down_blocks.0.{kind}.0" for kind in kinds}
    inner = {*(f"up_blocks.{k}.{kind}.{2 - 2 * k}" for k in (0, 1) for kind in kinds)}
    outer = {block for block in blocks if block.startswith(("down_blocks.0", "up_blocks.1"))}
    inner |= outer | {"up_blocks.0.upsamplers.0"}
    for branch, wanted in [(0, last), (1, last | middle | first), (3, inner)]:
        row = deepcache(dense_subnet(blocks), 2, branch=branch).gates[1]
        assert {block for block, on in zip(blocks, row, strict=True) if on} == wanted


def test_deepcache_nonuniform_is_the_published_one() -> None:
    published = [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]
    assert nonuniform_steps(50, 5, centre=15, power=1.4) == published
    assert full_rows(deepcache_nonuniform(dense_subnet(), 5)) == published


@given(st.integers(2, 100), st.integers(1, 20))
@settings(deadline=None)
def test_deepcache_nonuniform_has_as_many_steps(steps: int, interval: int) -> None:
    try:
        full = nonuniform_steps(steps, interval, centre=round(0.3 * steps), power=1.4)
    except DipgoError:
        return
    assert full[0] == 0
    assert len(set(full)) == -(-steps // interval)
    assert full == sorted(full)
    assert full[-1] < steps


def test_deepcache_needs_a_unet() -> None:
    with pytest.raises(DipgoError, match="expected blocks of a U-Net"):
        deepcache(dense_subnet(("transformer_blocks.0", "transformer_blocks.1")), 2)
    with pytest.raises(DipgoError, match="take a lower branch"):
        deepcache(dense_subnet(UP), 2, branch=11)
