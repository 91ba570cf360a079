"""Of a family of SubNets with one parameter, the one that costs what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dipgo.errors import DipgoError
from dipgo.subnet import SubNet

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
