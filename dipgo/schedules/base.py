"""What all schedules share: gates put into the SubNet of a dense trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet

TOLERANCE = 0.0125
"""By how much a kept share may exceed its target; as in DiP-GO, Algorithm 1."""

Param = TypeVar("Param")


def at_kept(
    make: Callable[[Param], SubNet],
    params: Iterable[Param],
    kept: Callable[[SubNet], float],
    target: float,
) -> SubNet:
    """The SubNet whose kept share is nearest to `target`, and at most `TOLERANCE` above it.

    `kept` is the share of the dense trajectory's cost, 0 to 1. Of two as near, the costlier one.
    Raises DipgoError where even the cheapest costs more.
    """
    costed = [(kept(subnet), subnet) for subnet in map(make, params)]
    within = [one for one in costed if one[0] <= target + TOLERANCE]
    if not within:
        raise _too_costly(min((share for share, _ in costed), default=1.0), target)
    return min(within, key=lambda one: (abs(one[0] - target), -one[0]))[1]


def at_kept_by_bisection(
    make: Callable[[Param], SubNet],
    params: Sequence[Param],
    kept: Callable[[SubNet], float],
    target: float,
) -> SubNet:
    """The same for `params` along which the kept share never rises, with few calls of `kept`."""
    low, high = 0, len(params)  # the first that keeps at most the target lies in between
    while low < high:
        middle = (low + high) // 2
        if kept(make(params[middle])) <= target:
            high = middle
        else:
            low = middle + 1
    return at_kept(make, params[max(low - 1, 0) : low + 1], kept, target)


def _too_costly(share: float, target: float) -> DipgoError:
    return DipgoError(
        "kept share",
        found=f"{share:.3f} with the cheapest of the family",
        expected=f"at most {target:g} + {TOLERANCE:g}",
        remedy="ask for a larger share, or widen the range of the parameter",
    )


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
