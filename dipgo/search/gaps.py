"""Gaps: evaluations between two that compute, which are one long step of the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Gap:
    """Evaluations from `first` up to `end`, which is not one of them, and their rows."""

    first: int
    end: int
    rows: tuple[int, ...]


def find_gaps(rows: Sequence[int], gates: NDArray[np.bool_]) -> tuple[Gap, ...]:
    """The gaps of gates bool[steps, blocks] in a sampler's `rows`."""
    assert list(rows) == sorted(rows), "a row on both sides of another would be in two gaps"
    found: list[Gap] = []
    for evaluation, row in enumerate(rows):
        if gates[row].any():
            continue
        if found and found[-1].end == evaluation:
            found[-1] = Gap(found[-1].first, evaluation + 1, (*found[-1].rows, row))
        else:
            found.append(Gap(evaluation, evaluation + 1, (row,)))
    return tuple(found)
