"""FORA (arXiv 2407.01425): attention and MLP outputs are computed again at every N-th step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.ir.block_patterns import is_within
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, regular_steps, with_gates

METHOD = "FORA"


def fora(dense: SubNet, interval: int, patterns: Sequence[str] = ()) -> SubNet:
    """Runs blocks that match `patterns` at every `interval`-th step, and others always.

    Args:
        dense: The SubNet whose gates are all on.
        interval: Steps from a computation to the next.
        patterns: Patterns of blocks; an empty sequence stands for all blocks. The paper caches
            `transformer_blocks.*.attn1` and `transformer_blocks.*.ff` of DiT, before the adaLN
            gate.

    Raises:
        DipgoError: The interval is below 1, or a pattern matches no block.

    Source:
        Selvaraju et al. 2024 (arXiv 2407.01425).
    """
    steps = regular_steps(METHOD, len(dense.timesteps), interval)
    cached = np.array([_matches(block, patterns) for block in dense.blocks])
    gates = all_on(dense)
    for pattern in patterns:
        if not any(is_within(block, pattern) for block in dense.blocks):
            raise DipgoError(
                f"{METHOD}, pattern {pattern!r}",
                found="no block that it matches",
                expected=f"blocks such as {dense.blocks[0]}",
                remedy="correct the pattern; * stands for one part between dots",
            )
    reusing = np.setdiff1d(np.arange(len(gates)), steps)
    gates[np.ix_(reusing, cached)] = False
    return with_gates(dense, gates, METHOD, interval=interval, patterns=list(patterns))


def _matches(block: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(is_within(block, pattern) for pattern in patterns)
