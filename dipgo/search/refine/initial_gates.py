"""Chooses gates to begin a search without scores: whole rows at regular steps, as many as fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.search.cost.budget import fits
from dipgo.search.cost.model import CostModel
from dipgo.search.cost.select import fill_budget

POWERS = (1.0, 1.5, 2.0, 2.5)
"""The powers by which steps grow with the rank of a row.

1 is regular; with more the rows are closer together at the beginning.
"""

LAST = (1.0, 0.6, 0.3)
"""The distances of the last row from the end, in mean distances of rows; 1 is regular."""

Gates = NDArray[np.bool_]


def regular_rows(cost: CostModel, kept: float) -> Iterator[Gates]:
    """Yields tables bool[steps, blocks] within the kept share, in several spacings; none twice.

    For each spacing there is a table of as many whole rows as fit and part of another, and a table
    with one row more whose rows lack the cheapest blocks.

    Raises:
        DipgoError: The blocks are too coarse for the share.
    """
    count = _count(cost, kept)
    seen: set[bytes] = set()
    problem: DipgoError | None = None
    for power, last, table in product(POWERS, LAST, (_rows_and_part, _rows_without_cheap)):
        try:
            gates = table(cost, kept, count, power, last)
        except DipgoError as error:
            problem = error
            continue
        if gates.tobytes() not in seen:
            seen.add(gates.tobytes())
            yield gates
    if not seen:
        assert problem is not None
        raise problem


def _rows_and_part(cost: CostModel, kept: float, count: int, power: float, last: float) -> Gates:
    rows = whole_rows(count, power, last, cost.shape)
    # The rest of the budget goes to the earliest row that is off, to its last blocks first.
    order = np.linspace(0.5, 0.0, rows.size).reshape(rows.shape)[:, ::-1]
    return fill_budget(np.where(rows, 1.0, order), cost, kept)


def _rows_without_cheap(
    cost: CostModel, kept: float, count: int, power: float, last: float
) -> Gates:
    rows = whole_rows(min(cost.shape[0], count + 1), power, last, cost.shape)
    shares = np.array([cost.share(block) for block in cost.blocks])
    return fill_budget(np.where(rows, 0.5 + 0.5 * shares / shares.max(), 0.0), cost, kept)


def _count(cost: CostModel, kept: float) -> int:
    """Returns the number of whole rows that fit; row 0 does, whatever it costs."""
    counts = range(cost.shape[0], 0, -1)
    tables = ((count, whole_rows(count, 1.0, 1.0, cost.shape)) for count in counts)
    return next((count for count, rows in tables if fits(cost.kept(rows), kept)), 1)


def whole_rows(count: int, power: float, last: float, shape: tuple[int, int]) -> Gates:
    """Returns bool[steps, blocks] with `count` whole rows, no two at the same step.

    The steps grow as a power of the rank.
    """
    rows: list[int] = []
    end = shape[0] * (1 - last / count)
    for index in range(count):
        wanted = int(end * (index / max(1, count - 1)) ** power)
        latest = shape[0] - (count - index)  # leaves room for the rows that follow
        rows.append(min(max(wanted, rows[-1] + 1 if rows else 0), latest))
    gates = np.zeros(shape, dtype=np.bool_)
    gates[rows] = True
    return gates
