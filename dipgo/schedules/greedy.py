"""Greedy: gates go in the order of what each alone does to the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, at_kept_by_bisection, check_table, with_gates

METHOD = "greedy"


def greedy(dense: SubNet, losses: NDArray[np.float64], removed: int) -> SubNet:
    """Without the `removed` gates whose single removal costs least; row 0 stays.

    `losses` f64[steps, blocks] are those of `dipgo.search.calibrate.removal_losses`.
    Of equal ones the later step goes first. Raises DipgoError.
    """
    check_table(METHOD, dense, losses.shape)
    gates = all_on(dense)
    rest = gates[1:].reshape(-1)  # a view
    order = np.argsort(losses[1:].reshape(-1)[::-1], kind="stable")
    rest[rest.size - 1 - order[:removed]] = False
    return with_gates(dense, gates, METHOD, removed=removed)


def greedy_at_kept(
    dense: SubNet,
    losses: NDArray[np.float64],
    kept: Callable[[SubNet], float],
    target: float,
) -> SubNet:
    """With gates taken out until the kept share is met; raises DipgoError where it cannot be."""
    counts = range(dense.gates[1:].size + 1)
    return at_kept_by_bisection(lambda count: greedy(dense, losses, count), counts, kept, target)
