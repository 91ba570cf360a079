"""Pairs: the prompts and seeds that every SubNet, and dense, draws a picture of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.torch_noise import initial_noise


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture to draw: its prompt, and the seed of its noise."""

    prompt: str
    seed: int


def make_pairs(prompts: Sequence[str], count: int, seed: int) -> tuple[Pair, ...]:
    """Returns pairs; pair i has prompt i mod the number of prompts, and the seed `seed` + i.

    Raises:
        DipgoError: There is no prompt.
    """
    if not prompts:
        raise DipgoError(
            "prompts", found="none", expected="at least one", remedy="write one prompt a line"
        )
    return tuple(Pair(prompts[i % len(prompts)], seed + i) for i in range(count))


def noise_of(pairs: Sequence[Pair], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns noise of unit variance f32[pairs, *shape], each row by its own seed."""
    return np.concatenate([initial_noise(pair.seed, (1, *shape)) for pair in pairs])
