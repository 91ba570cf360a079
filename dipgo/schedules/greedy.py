"""Greedy: switches gates off in the order of what each alone does to the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, at_kept_by_bisection, check_table, with_gates

METHOD = "greedy"


def greedy(dense: SubNet, losses: NDArray[np.float64], removed: int) -> SubNet:
    """Switches off the `removed` gates whose single removal costs least; row 0 stays on.

    Of equal losses the later step goes first.

    Args:
        dense: The SubNet whose gates are all on.
        losses: Losses f64[steps, blocks] of `dipgo.search.calibrate.removal_losses`.
        removed: The number of gates to switch off.

    Raises:
        DipgoError: `losses` belong to other steps or blocks.
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
    """Switches gates off until the kept share meets `target`, see `at_kept`.

    Raises:
        DipgoError: The share cannot be met, or `losses` belong to other steps or blocks.
    """
    counts = range(dense.gates[1:].size + 1)
    return at_kept_by_bisection(lambda count: greedy(dense, losses, count), counts, kept, target)
