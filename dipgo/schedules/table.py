"""What all schedules share: gates put into the SubNet of a dense trajectory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.errors import DipgoError
from dipgo.subnet import SubNet

Gates = NDArray[np.bool_]
"""bool[steps, blocks]"""


def with_gates(dense: SubNet, gates: Gates, method: str, **parameters: Any) -> SubNet:
    """The same model, scheduler, blocks and timesteps with these gates, and where they are from."""
    provenance = {"method": method, **parameters}
    plain = replace(dense.without_reuse(), scores=None, prior_noise=None)
    return replace(plain, gates=gates, provenance=provenance)


def all_on(dense: SubNet) -> Gates:
    """bool[steps, blocks], writable."""
    return np.ones(dense.gates.shape, dtype=np.bool_)


def regular_steps(method: str, steps: int, interval: int) -> list[int]:
    """0, interval, 2·interval, … below `steps`. Raises DipgoError for an interval below 1."""
    check_interval(method, interval)
    return list(range(0, steps, interval))


def check_interval(method: str, interval: int) -> None:
    """Raises DipgoError for an interval below 1."""
    if interval < 1:
        raise DipgoError(
            f"{method}, interval",
            found=str(interval),
            expected="a whole number of steps, 1 or more",
            remedy="1 computes every step, 2 every other",
        )


def check_table(method: str, dense: SubNet, shape: tuple[int, ...]) -> None:
    """Raises DipgoError where calibration belongs to other steps or blocks."""
    if shape != dense.gates.shape:
        raise DipgoError(
            f"{method}, calibration",
            found=" × ".join(map(str, shape)),
            expected=f"steps × blocks of the SubNet, {' × '.join(map(str, dense.gates.shape))}",
            remedy="calibrate with the same model, blocks and steps",
        )
