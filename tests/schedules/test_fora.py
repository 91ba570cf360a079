"""FORA's intervals."""

from __future__ import annotations

import pytest

from dipgo.common.errors import DipgoError
from dipgo.schedules.fora import fora
from tests.support.tiny_schedules import (
    dense_subnet,
    row_strings,
)


def test_fora_recomputes_what_matches() -> None:
    blocks = ("pos_embed", "transformer_blocks.0.attn1", "transformer_blocks.0.ff")
    assert row_strings(fora(dense_subnet(blocks, 5), 2)) == ["111", "000", "111", "000", "111"]
    cached = fora(dense_subnet(blocks, 4), 3, ["transformer_blocks.*"])
    assert row_strings(cached) == ["111", "100", "100", "111"]
    with pytest.raises(DipgoError, match="no block that it matches"):
        fora(dense_subnet(blocks, 4), 3, ["up_blocks.*"])
    with pytest.raises(DipgoError, match="interval"):
        fora(dense_subnet(blocks, 4), 0)
