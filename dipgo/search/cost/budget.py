"""Meets a kept share with gates in a fixed order; all ways of choosing gates use it.

An order of gates is i[gates]: flat indices into a table of gates, of rows after the first only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.search.cost.count_calls import Bools
from dipgo.search.cost.model import CostModel

Scores: TypeAlias = NDArray[np.float64]

Order: TypeAlias = NDArray[np.intp]

TOLERANCE = 0.0125
"""The greatest distance of a kept share from the target (DiP-GO, Algorithm 1)."""

MAX_TRADES = 100
"""The most gates that are given up, one at a time, for others that come closer to the target."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A table of gates, bool[steps, blocks], and the share that it keeps."""

    gates: Bools
    kept: float

    @classmethod
    def of(cls, model: CostModel, gates: Bools) -> Choice:
        """Returns the choice of `gates`."""
        return cls(gates, model.kept(gates))

    def without(self, model: CostModel, order: Order) -> Choice:
        """Returns the choice with the gates of `order` off."""
        return self._switched(model, order, False)

    def with_(self, model: CostModel, order: Order) -> Choice:
        """Returns the choice with the gates of `order` on."""
        return self._switched(model, order, True)

    def _switched(self, model: CostModel, order: Order, on: bool) -> Choice:
        gates = self.gates.copy()
        gates.flat[order] = on
        return Choice.of(model, gates)


@dataclass(frozen=True, slots=True)
class Bracket:
    """The best choices known on both sides of the target: `above` keeps more, `below` fits."""

    above: Choice
    below: Choice

    def is_close(self, target: float) -> bool:
        """Returns whether the choice that fits uses the budget up to the tolerance."""
        return target - self.below.kept < TOLERANCE

    def with_above(self, choice: Choice) -> Bracket:
        """Returns the bracket with `choice` above the target, if that is nearer to it."""
        return replace(self, above=choice) if choice.kept < self.above.kept else self


def dense(model: CostModel) -> Choice:
    """Returns the choice with all gates on."""
    return Choice.of(model, np.ones(model.shape, dtype=np.bool_))


def order_by_score(scores: Scores) -> Order:
    """Returns the gates after row 0 by rising keep-score; of equal ones, the table's last first."""
    blocks = scores.shape[1]
    backward = np.arange(scores.size - 1, blocks - 1, -1)
    return backward[np.argsort(scores.flat[backward], kind="stable")]


def fits(kept: float, target: float) -> bool:
    """Returns whether a kept share is within the target, up to rounding."""
    return kept <= target + _ROUNDING


def bisect_count(
    model: CostModel, start: Choice, order: Order, counts: Sequence[int], target: float
) -> tuple[Bracket, int]:
    """Bisects how many gates go off, in order, until neighbours in `counts` bracket the target.

    Args:
        model: The cost of gates.
        start: The choice from which gates go off.
        order: The gates, the first to go off first.
        counts: Rising numbers of gates; the first must keep more than the target, the last fit.
        target: The share of the dense cost to keep.

    Returns:
        The bracket, and the index in `counts` of the count that fits.
    """
    low, high = 0, len(counts) - 1
    above = start.without(model, order[: counts[low]])
    below = start.without(model, order[: counts[high]])
    while high - low > 1:
        middle = (low + high) // 2
        tried = start.without(model, order[: counts[middle]])
        if fits(tried.kept, target):
            high, below = middle, tried
        else:
            low, above = middle, tried
    return Bracket(above, below), high


def come_close(model: CostModel, bracket: Bracket, order: Order, target: float) -> Bracket:
    """Fills the budget; if that stops short, trades gates, the first of the order first.

    A trade gives up one gate and fills the budget that this frees with others.
    """
    bracket = fill(model, bracket, order, target)
    for gate in order[bracket.below.gates.flat[order]][:MAX_TRADES]:
        if bracket.is_close(target):
            break
        given_up = Bracket(bracket.above, bracket.below.without(model, gate))
        others = order[order != gate]
        traded = fill(model, given_up, others, target)
        better = max(bracket.below, traded.below, key=lambda choice: choice.kept)
        bracket = Bracket(traded.above, better)
    return bracket


def fill(model: CostModel, bracket: Bracket, order: Order, target: float) -> Bracket:
    """Switches on, from the last of the order to the first, every gate that costs and fits.

    Starts without dead gates. A gate whose call nothing would read costs nothing and stays off,
    but is tried again once others are on; one whose own call is dearer than what is left of the
    budget is not tried. Stops when a round adds nothing.
    """
    own = np.array([model.share(block) for block in model.blocks])
    below = Choice.of(model, prune_dead(bracket.below.gates, model))
    added = True
    while added:
        added = False
        for gate in order[::-1]:
            too_dear = not fits(below.kept + own[gate % len(own)], target)
            if below.gates.flat[gate] or too_dear:
                continue
            tried = below.with_(model, gate)
            if not fits(tried.kept, target):
                bracket = bracket.with_above(tried)
            elif tried.kept > below.kept + _ROUNDING:
                below, added = tried, True
    return replace(bracket, below=below)


def prune_dead(gates: Bools, model: CostModel) -> Bools:
    """Returns the gates without those whose calls nothing reads; row 0 stays all on.

    This is exact: the plan's calls and its result are the same.
    """
    pruned = model.used(gates)
    pruned[0] = True
    return pruned


def settle(model: CostModel, bracket: Bracket, target: float, allow_overshoot: bool) -> Bools:
    """Returns the gates that fit, or with `allow_overshoot` those that are nearer; no dead gates.

    Raises:
        DipgoError: Neither choice is within the tolerance.
    """
    above, below = bracket.above, bracket.below
    chosen = below
    if allow_overshoot and abs(above.kept - target) < abs(target - below.kept):
        chosen = above
    if abs(target - chosen.kept) >= TOLERANCE:
        raise DipgoError(
            setting("ratio"),
            found=f"{1 - target:.4f}, a kept share of {target:.4f}",
            expected=f"within {TOLERANCE} of a kept share that can be reached: the nearest found "
            f"are {below.kept:.4f} below and {above.kept:.4f} above",
            remedy=f"ask for {setting('ratio')} {_ratio(below.kept)} or {_ratio(above.kept)}, "
            "or gate smaller blocks",
        )
    return prune_dead(chosen.gates, model)


def check(model: CostModel, scores: Scores, target: float) -> None:
    """Checks that there is a score in [0, 1] for every gate, and the target.

    Raises:
        DipgoError: A score is missing or out of range, or the target cannot be reached.
    """
    if scores.shape != model.shape or not ((scores >= 0) & (scores <= 1)).all():
        rows, columns = model.shape
        raise DipgoError(
            "scores",
            found=f"{list(scores.shape)}, from {np.min(scores):g} to {np.max(scores):g}",
            expected=f"f64[{rows}, {columns}] from 0 to 1",
            remedy="give each gate the score with which it is to be kept",
        )
    check_target(model, target)


def check_target(model: CostModel, target: float) -> None:
    """Checks that the kept share `target` can be reached.

    Raises:
        DipgoError: It cannot.
    """
    if fits(model.fixed, target) and target <= 1:
        return
    raise DipgoError(
        setting("ratio"),
        found=f"{1 - target:.4f}, a kept share of {target:.4f}",
        expected=f"a kept share from {model.fixed:.4f}, the least that can be reached, to 1",
        remedy=f"ask for a ratio from 0 to {_ratio(model.fixed)}",
    )


def _ratio(kept: float) -> str:
    """Returns the ratio for a kept share, rounded so that the share fits."""
    return f"{max(0, floor((1 - kept + _ROUNDING) * 1e4)) / 1e4:.4f}"
