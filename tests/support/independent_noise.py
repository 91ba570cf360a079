"""A seed's noise, made by what docs/reference/manifest.md says of it, number by number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def twister_of(seed: int) -> np.random.RandomState:
    """MT19937, seeded as `init_genrand` does."""
    return np.random.RandomState(seed & 0xFFFFFFFF)


def noise(twister: np.random.RandomState, count: int) -> NDArray[np.float32]:
    """The next draw, normal numbers f32[count]; `count` is 16 or more."""

    def words(number: int) -> list[float]:
        drawn = twister.randint(0, 2**32, size=number, dtype=np.uint32)
        return [(int(word) & 0xFFFFFF) * 2.0**-24 for word in drawn]

    def block(u: list[float]) -> list[float]:
        r = [np.sqrt(-2 * np.log(1 - u[i])) for i in range(8)]
        a = [2 * np.pi * u[i + 8] for i in range(8)]
        return [r[i] * np.cos(a[i]) for i in range(8)] + [r[i] * np.sin(a[i]) for i in range(8)]

    uniform = words(count)
    numbers = [x for i in range(0, count - 15, 16) for x in block(uniform[i : i + 16])]
    if count % 16:
        numbers = (numbers + [0.0] * (count % 16))[:-16] + block(words(16))
    return np.array(numbers, np.float32)
