"""Selects, from the scores of gates, gates that keep a target share of the cost.

Scores are keep-scores, f64[steps, blocks] from 0 to 1; gates are bool[steps, blocks], row 0 all
on. `target` is the share of the dense cost that is kept, so 0.2 for `--ratio 0.8`. Every function
ends within `TOLERANCE` of the target and, unless `allow_overshoot`, not above it. If its own rule
stops short of that, it finishes gate by gate, in the order of the scores. Gates whose calls
nothing reads are off. Of equal scores, the last of the table goes off first.
"""

from __future__ import annotations

import numpy as np

from dipgo.search.cost.budget import (
    TOLERANCE,
    Bracket,
    Choice,
    Order,
    Scores,
    bisect_count,
    check,
    come_close,
    dense,
    fits,
    order_by_score,
    prune_dead,
    settle,
)
from dipgo.search.cost.cascade import dying_with
from dipgo.search.cost.count_calls import Bools
from dipgo.search.cost.model import CostModel

__all__ = [
    "TOLERANCE",
    "bisect_threshold",
    "fill_budget",
    "prune_dead",
    "sweep_threshold",
]

_THRESHOLDS = tuple(round(0.95 - 0.05 * index, 2) for index in range(20))
"""The thresholds on the reuse-score, from 0.95 down to 0."""


def bisect_threshold(
    scores: Scores, model: CostModel, target: float, *, allow_overshoot: bool = False
) -> Bools:
    """Bisects the threshold c below whose keep-score gates go off.

    The cascade is that of the cost: calls that nothing reads cost nothing. The bisection ends at
    the lowest c that fits, not at the first within the tolerance. If it stops short because many
    gates have that score, it goes on among them, in their fixed order.

    Args:
        scores: Keep-scores f64[steps, blocks].
        model: The cost of gates.
        target: The share of the dense cost to keep.
        allow_overshoot: Whether the result may keep more than the target, within the tolerance.

    Raises:
        DipgoError: Scores or target are out of range, or no gates are within the tolerance.

    Source:
        DiP-GO (arXiv 2410.16942), Algorithm 1.
    """
    check(model, scores, target)
    everything = dense(model)
    if fits(everything.kept, target):
        return prune_dead(everything.gates, model)
    order = order_by_score(scores)
    ranked = scores.flat[order]
    ends = [0, *(np.flatnonzero(np.diff(ranked)) + 1).tolist(), len(order)]
    bracket, index = bisect_count(model, everything, order, ends, target)
    if not bracket.is_close(target):
        tied = range(ends[index - 1], ends[index] + 1)
        bracket, _ = bisect_count(model, everything, order, tied, target)
    if not bracket.is_close(target):
        bracket = come_close(model, bracket, order, target)
    return settle(model, bracket, target, allow_overshoot)


def sweep_threshold(
    scores: Scores, model: CostModel, target: float, *, allow_overshoot: bool = False
) -> Bools:
    """Takes blocks out with their cascades while a threshold on 1 − score falls.

    For each threshold from 0.95 down, for each block from the last to the first, and for each
    step by falling reuse-score above the threshold: the block goes off, with what dies with it at
    that step, unless too little would be kept. A gate that was refused is not tried again. The
    released code stays above the target; this function does so only with `allow_overshoot`.

    Args:
        scores: Keep-scores f64[steps, blocks].
        model: The cost of gates.
        target: The share of the dense cost to keep.
        allow_overshoot: Whether the result may keep more than the target, within the tolerance.

    Raises:
        DipgoError: Scores or target are out of range, or no gates are within the tolerance.

    Source:
        The code that DiP-GO's authors released.
    """
    check(model, scores, target)
    everything = dense(model)
    if fits(everything.kept, target):
        return prune_dead(everything.gates, model)
    least = target if allow_overshoot else target - TOLERANCE
    most = target + TOLERANCE if allow_overshoot else target
    choice = _sweep(1.0 - scores, model, everything, least, most)
    order = order_by_score(scores)
    if allow_overshoot and abs(choice.kept - target) < TOLERANCE:
        return settle(model, Bracket(choice, choice), target, allow_overshoot)
    if fits(choice.kept, target):
        bracket = Bracket(everything, choice)
    else:
        rest = order[choice.gates.flat[order]]
        bracket, _ = bisect_count(model, choice, rest, range(len(rest) + 1), target)
    if not bracket.is_close(target):
        bracket = come_close(model, bracket, order, target)
    return settle(model, bracket, target, allow_overshoot)


def _sweep(reuse: Scores, model: CostModel, choice: Choice, least: float, most: float) -> Choice:
    """Returns the first choice that keeps at most `most`, or that of the last threshold.

    No choice keeps less than `least`, up to rounding.
    """
    columns = _columns_dying_with(model)
    refused = np.zeros(model.shape, dtype=np.bool_)
    for threshold in _THRESHOLDS:
        for block in columns:
            for step in _steps_by_reuse(reuse[:, block], threshold):
                if not choice.gates[step, block] or refused[step, block]:
                    continue
                taken_out = step * len(columns) + columns[block]
                tried = choice.without(model, taken_out)
                if not fits(least, tried.kept):
                    refused[step, block] = True
                    continue
                choice = tried
                if fits(choice.kept, most):
                    return choice
    return choice


def _columns_dying_with(model: CostModel) -> dict[int, Order]:
    """Returns the columns of each block's cascade, the last block of the graph first."""
    column = {name: index for index, name in enumerate(model.blocks)}
    words = dict(zip(model.blocks, model.backup, strict=True))
    dying = dying_with(model.graph, [words[node.name] for node in model.graph.blocks])
    return {
        column[block]: np.array(sorted(column[name] for name in dying[block]), dtype=np.intp)
        for block in reversed(dying)
    }


def _steps_by_reuse(reuse: Scores, threshold: float) -> list[int]:
    """Returns the steps after the first whose reuse-score is above the threshold, highest first."""
    steps = 1 + np.argsort(-reuse[1:], kind="stable")
    return [int(step) for step in steps if reuse[step] > threshold]


def fill_budget(
    scores: Scores, model: CostModel, target: float, *, allow_overshoot: bool = False
) -> Bools:
    """Switches the lowest gates off until the rest fits, then on again all that still fit.

    Bisection finds how many go off first; then, by falling score, each gate comes back that adds
    to the cost and keeps within the target.

    Args:
        scores: Keep-scores f64[steps, blocks].
        model: The cost of gates.
        target: The share of the dense cost to keep.
        allow_overshoot: Whether the result may keep more than the target, within the tolerance.

    Raises:
        DipgoError: Scores or target are out of range, or no gates are within the tolerance.
    """
    check(model, scores, target)
    everything = dense(model)
    if fits(everything.kept, target):
        return prune_dead(everything.gates, model)
    order = order_by_score(scores)
    bracket, _ = bisect_count(model, everything, order, range(len(order) + 1), target)
    return settle(model, come_close(model, bracket, order, target), target, allow_overshoot)
