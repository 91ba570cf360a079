"""Helpers that all schedules share: they put gates into the SubNet of a dense trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet

TOLERANCE = 0.0125
"""The most by which a kept share may exceed its target; as in DiP-GO, Algorithm 1."""

Param = TypeVar("Param")


def at_kept(
    make: Callable[[Param], SubNet],
    params: Iterable[Param],
    kept: Callable[[SubNet], float],
    target: float,
) -> SubNet:
    """Picks the parameter at which a one-parameter schedule meets a cost budget.

    The SubNet's kept share is the nearest to `target`, and at most `TOLERANCE` above it. Of two
    that are equally near, the costlier is taken.

    Args:
        make: Makes the SubNet at a value of the parameter.
        params: The values to choose among.
        kept: Returns a SubNet's share of the dense trajectory's cost, 0 to 1.
        target: The share to meet, 0 to 1.

    Raises:
        DipgoError: Even the cheapest SubNet costs more.
    """
    costed = [(kept(subnet), subnet) for subnet in map(make, params)]
    within = [pair for pair in costed if pair[0] <= target + TOLERANCE]
    if not within:
        raise _too_costly(min((share for share, _ in costed), default=1.0), target)
    return min(within, key=lambda pair: (abs(pair[0] - target), -pair[0]))[1]


def at_kept_by_bisection(
    make: Callable[[Param], SubNet],
    params: Sequence[Param],
    kept: Callable[[SubNet], float],
    target: float,
) -> SubNet:
    """Picks as `at_kept` does, with few calls of `kept`.

    The kept share must never rise along `params`.

    Raises:
        DipgoError: Even the cheapest SubNet costs more.
    """
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
"""A table of gates, bool[steps, blocks]."""


def with_gates(dense: SubNet, gates: Gates, method: str, **parameters: Any) -> SubNet:
    """Returns a SubNet of the same model, scheduler, blocks and timesteps with other gates.

    Args:
        dense: The SubNet of the dense trajectory; its reuse, scores and prior noise are dropped.
        gates: The gates, bool[steps, blocks].
        method: The method that chose the gates, for the provenance.
        parameters: The method's parameters, for the provenance.
    """
    provenance = {"method": method, **parameters}
    plain = replace(dense.without_reuse(), scores=None, prior_noise=None)
    return replace(plain, gates=gates, provenance=provenance)


def all_on(dense: SubNet) -> Gates:
    """Returns a writable table bool[steps, blocks] with every gate on."""
    return np.ones(dense.gates.shape, dtype=np.bool_)


def regular_steps(method: str, steps: int, interval: int) -> list[int]:
    """Returns the steps 0, interval, 2·interval, … below `steps`.

    Raises:
        DipgoError: The interval is below 1; `method` is named.
    """
    check_interval(method, interval)
    return list(range(0, steps, interval))


def check_interval(method: str, interval: int) -> None:
    """Checks an interval in steps.

    Raises:
        DipgoError: The interval is below 1; `method` is named.
    """
    if interval < 1:
        raise DipgoError(
            f"{method}, interval",
            found=str(interval),
            expected="a whole number of steps, 1 or more",
            remedy="1 computes every step, 2 every other",
        )


def check_table(method: str, dense: SubNet, shape: tuple[int, ...]) -> None:
    """Checks that a calibration has the steps and blocks of a SubNet.

    Raises:
        DipgoError: `shape` is not (steps, blocks) of `dense`; `method` is named.
    """
    if shape != dense.gates.shape:
        raise DipgoError(
            f"{method}, calibration",
            found=" × ".join(map(str, shape)),
            expected=f"steps × blocks of the SubNet, {' × '.join(map(str, dense.gates.shape))}",
            remedy="calibrate with the same model, blocks and steps",
        )
