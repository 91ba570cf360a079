"""Pairs: the prompts and seeds that every SubNet, and dense, draws a picture of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.common.torch_noise import MAX_SEED, initial_noise

FEWEST_PAIRS = 2
"""The fewest pairs that have a spread, and so a confidence interval."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture to draw: its prompt, and the seed of its noise."""

    prompt: str
    seed: int


def make_pairs(prompts: Sequence[str], count: int, seed: int) -> tuple[Pair, ...]:
    """Returns pairs; pair i has prompt i mod the number of prompts, and the seed `seed` + i.

    Raises:
        DipgoError: There is no prompt, there are too few pairs, or a seed is out of range.
    """
    if not prompts:
        raise DipgoError(
            "prompts", found="none", expected="at least one", remedy="write one prompt a line"
        )
    if count < FEWEST_PAIRS:
        raise DipgoError(
            setting("pairs"),
            found=str(count),
            expected=f"at least {FEWEST_PAIRS}: one value has no confidence interval",
            remedy="take more pairs, 64 for example",
        )
    if not 0 <= seed <= MAX_SEED - count:
        raise DipgoError(
            setting("seed"),
            found=str(seed),
            expected=f"a whole number from 0 to {MAX_SEED - count}",
            remedy="choose a seed in that range",
        )
    return tuple(Pair(prompts[i % len(prompts)], seed + i) for i in range(count))


def noise_of(pairs: Sequence[Pair], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns noise of unit variance f32[pairs, *shape], each row by its own seed."""
    return np.concatenate([initial_noise(pair.seed, (1, *shape)) for pair in pairs])
