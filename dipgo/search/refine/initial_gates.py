"""Where a search without scores begins: whole rows at regular steps, as many as fit."""

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
"""How steps grow with the rank of a row; 1 is regular, more is closer at the beginning."""

LAST = (1.0, 0.6, 0.3)
"""How far from the end the last row is, in mean distances of rows; 1 is regular."""

Gates = NDArray[np.bool_]


def regular_rows(cost: CostModel, kept: float) -> Iterator[Gates]:
    """Tables bool[steps, blocks] within the kept share, in several spacings; none comes twice.

    For each there is one of as many whole rows as fit and part of another, and one of a row more
    whose rows lack the cheapest blocks. Raises DipgoError where blocks are too coarse for the
    share.
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
    # What is left goes to the earliest row that is off, to its last blocks first.
    order = np.linspace(0.5, 0.0, rows.size).reshape(rows.shape)[:, ::-1]
    return fill_budget(np.where(rows, 1.0, order), cost, kept)


def _rows_without_cheap(
    cost: CostModel, kept: float, count: int, power: float, last: float
) -> Gates:
    rows = whole_rows(min(cost.shape[0], count + 1), power, last, cost.shape)
    shares = np.array([cost.share(block) for block in cost.blocks])
    return fill_budget(np.where(rows, 0.5 + 0.5 * shares / shares.max(), 0.0), cost, kept)


def _count(cost: CostModel, kept: float) -> int:
    """How many whole rows fit; row 0 does, whatever it costs."""
    counts = range(cost.shape[0], 0, -1)
    tables = ((count, whole_rows(count, 1.0, 1.0, cost.shape)) for count in counts)
    return next((count for count, rows in tables if fits(cost.kept(rows), kept)), 1)


def whole_rows(count: int, power: float, last: float, shape: tuple[int, int]) -> Gates:
    """`count` rows whose steps grow as a power of their rank; no two are the same."""
    rows: list[int] = []
    end = shape[0] * (1 - last / count)
    for index in range(count):
        wanted = int(end * (index / max(1, count - 1)) ** power)
        latest = shape[0] - (count - index)  # leaves room for those that follow
        rows.append(min(max(wanted, rows[-1] + 1 if rows else 0), latest))
    gates = np.zeros(shape, dtype=np.bool_)
    gates[rows] = True
    return gates
