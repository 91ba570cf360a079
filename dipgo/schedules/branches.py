"""Branches of a U-Net: which blocks lie outside the skip at which DeepCache turns back.

The branch of depth i and layer l leaves the U-Net before layer l of down block i, and returns to
it at the layer that takes that skip, l from the end of the i-th up block from the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PART = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?(?:\.([a-z]+)\.(\d+))?(?:\.|$)")
"""Side, block, kind and number of the layer, where a path has them."""


def is_outside(block: str, blocks: Sequence[str], depth: int, layer: int) -> bool:
    """Whether a step that runs one branch alone computes it; a whole block if any of its layers."""
    match = PART.match(block)
    if match is None:  # conv_in and the head are outside all branches
        return True
    side, number, kind, place = match.groups()
    if side == "mid":
        return False
    outside = int(number) if side == "down" else _last(r"up_blocks\.(\d+)", blocks) - int(number)
    if outside != depth:
        return outside < depth
    if side == "down":
        return layer > 0 if kind is None else kind != "downsamplers" and int(place) < layer
    if kind is None or kind == "upsamplers":
        return True
    last = _last(rf"up_blocks\.{number}\.(?:resnets|attentions)\.(\d+)", blocks)
    return last - int(place) <= layer


def _last(pattern: str, blocks: Sequence[str]) -> int:
    """The highest number that the pattern finds in the blocks' paths."""
    return max(int(match[1]) for match in (re.match(pattern, block) for block in blocks) if match)
