"""Knapsack: the set of gates with the least sum of losses, within a budget of MACs.

LAPTOP-Diff (arXiv 2404.11098) approximates the loss of removing layers together by the sum of the
losses of removing each, and so chooses them by a 0/1 knapsack; here the layers are gates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, check_table, with_gates

METHOD = "knapsack"

CELLS = 4096
"""The number of units of a budget, unless the MACs have a larger common divisor."""


def knapsack(
    dense: SubNet, losses: NDArray[np.float64], macs: Mapping[str, int], share: float
) -> SubNet:
    """Keeps, besides row 0, the gates with the largest sum of losses within `share` of all MACs.

    A block that is dropped because all its readers are off counts as kept: the plan costs `share`
    at most.

    Args:
        dense: The SubNet whose gates are all on.
        losses: Losses f64[steps, blocks] of removing each gate alone.
        macs: MACs of a call of each block.
        share: The share of all MACs to keep, 0 to 1.

    Raises:
        DipgoError: `losses` belong to other steps or blocks.

    Source:
        LAPTOP-Diff (arXiv 2404.11098).
    """
    check_table(METHOD, dense, losses.shape)
    costs = np.array([macs[block] for block in dense.blocks], dtype=np.int64)
    rows = len(losses)
    budget = int(share * rows * costs.sum()) - int(costs.sum())
    gates = all_on(dense)
    weights = np.tile(costs, rows - 1)
    gates[1:] = choose_kept(losses[1:].reshape(-1), weights, budget).reshape(rows - 1, -1)
    return with_gates(dense, gates, METHOD, share=share)


def choose_kept(
    values: NDArray[np.float64], weights: NDArray[np.int64], budget: int, cells: int = CELLS
) -> NDArray[np.bool_]:
    """Chooses the items with the largest sum of values whose weights sum to at most `budget`.

    It uses dynamic programming over n items and the budget in units. A unit is the weights'
    greatest common divisor, which is exact, or `budget / cells` with weights rounded up, which may
    miss the optimum but keeps to the budget.

    Args:
        values: Values f64[n].
        weights: Weights i64[n].
        budget: The most that the weights may sum to.
        cells: The most units that the budget is divided into.

    Returns:
        Which items are kept, bool[n].
    """
    unit = max(int(np.gcd.reduce(weights)), 1)
    if budget > unit * cells:
        unit = -(-budget // cells)
    room = max(budget, 0) // unit
    best = np.zeros(room + 1)
    taken = np.zeros((len(values), room + 1), dtype=np.bool_)
    for item, (value, weight) in enumerate(zip(values, -(-weights // unit), strict=True)):
        if weight <= room and budget >= 0:
            with_it = best[: room + 1 - weight] + value
            taken[item, weight:] = with_it > best[weight:]
            best[weight:] = np.maximum(with_it, best[weight:])
    kept = np.zeros(len(values), dtype=np.bool_)
    for item in range(len(values) - 1, -1, -1):
        kept[item] = taken[item, room]
        room -= int(kept[item]) * int(-(-weights[item] // unit))
    return kept
