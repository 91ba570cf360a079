"""Block Caching and SmoothCache, which follow measured changes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dipgo.common.errors import DipgoError
from dipgo.schedules.block_caching import block_caching
from dipgo.schedules.smooth_cache import component_type, smooth_cache
from dipgo.search.calibrate import Changes
from tests.support.tiny_schedules import (
    dense_subnet,
    random_changes,
    row_strings,
)


def test_block_caching_by_hand() -> None:
    relative = np.full((1, 6, 2), np.nan)
    relative[0, 1:, 0] = [0.2, 0.2, 0.2, 0.6, 0.1]  # 0.2, 0.4, then over 0.5; over at once; 0.1
    relative[0, 1:, 1] = 0.0
    dense = dense_subnet(("mid_block", "up_blocks.0"), 6)
    subnet = block_caching(dense, Changes(dense.blocks, relative), 0.5)
    assert row_strings(subnet) == ["11", "00", "00", "10", "10", "00"]


def test_smooth_cache_by_hand() -> None:
    blocks = ("up_blocks.0", "up_blocks.1", "mid_block")
    relative = np.full((2, 8, 3), np.nan)
    relative[0, 1:, 0] = [0.0, 0.2, 0.0, 0.4, 0.0, 0.2, 0.2]
    relative[0, 1:, 1] = [0.2, 0.0, 0.4, 0.0, 0.2, 0.0, 0.0]  # means 0.1 0.1 0.2 0.2 0.1 0.1 0.1
    relative[1, 2:, :2] = np.array([0.15, 0.3, 0.3, 0.16, 0.3, 0.1])[:, None]
    relative[:, :, 2] = 9.0
    dense = dense_subnet(blocks, 8)
    subnet = smooth_cache(dense, Changes(blocks, relative), 0.15)
    # From 0 lag 2 will do; from 3 none; from 4 lag 1; from 6 lag 1, but the last is forced.
    assert row_strings(subnet) == ["111", "001", "001", "111", "111", "001", "111", "111"]
    assert component_type("up_blocks.3.resnets.0") == "up_blocks.*.resnets.*"


def test_calibration_of_other_blocks_is_refused() -> None:
    changes = random_changes(dense_subnet(("mid_block",), 6))
    with pytest.raises(DipgoError, match="calibrate with the blocks"):
        smooth_cache(dense_subnet(steps=6), changes, 0.1)
    with pytest.raises(DipgoError, match="6 × 1"):
        block_caching(dense_subnet(("mid_block",), 7), changes, 0.1)
