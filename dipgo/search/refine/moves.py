"""The moves of a local search: each changes a table of gates in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Gates: TypeAlias = NDArray[np.bool_]

Move: TypeAlias = Callable[[Gates, np.random.Generator], Gates]
"""A function that changes a table bool[steps, blocks], and never its row 0."""


def propose(gates: Gates, random: np.random.Generator) -> Gates:
    """Returns another table, or the same if the move that was drawn has nothing to change."""
    return MOVES[random.choice(len(MOVES), p=PROBABILITIES)](gates.copy(), random)


def _slide_row(gates: Gates, random: np.random.Generator) -> Gates:
    """Swaps a row that computes with one nearby, most often the next."""
    rows = _computing_rows(gates)
    if not len(rows):
        return gates
    row = _any(rows, random)
    return _swapped(gates, row, min(len(gates) - 1, max(1, row + _shift(random))))


def _slide_pair(gates: Gates, random: np.random.Generator) -> Gates:
    """Moves two neighbouring rows that compute in the same direction, by the same distance."""
    rows = _computing_rows(gates)
    if len(rows) < 2:
        return gates
    index, shift = int(random.integers(len(rows) - 1)), _shift(random)
    pair = [int(row) for row in rows[index : index + 2]]
    targets = [row + shift for row in pair]
    others = set(map(int, rows)) - set(pair)
    if targets[0] < 1 or targets[1] >= len(gates) or others & set(targets):
        return gates
    for row, target in sorted(zip(pair, targets, strict=True), reverse=shift > 0):
        gates = _swapped(gates, row, target)
    return gates


def _shift(random: np.random.Generator) -> int:
    """Returns 1, 2, 3, … in either direction; each half as likely as the one before."""
    return int(random.geometric(0.5)) * int(random.choice((-1, 1)))


def _move_row(gates: Gates, random: np.random.Generator) -> Gates:
    """Swaps a row that computes with any other."""
    rows = _computing_rows(gates)
    if not len(rows):
        return gates
    return _swapped(gates, _any(rows, random), int(random.integers(1, len(gates))))


def _fill_row(gates: Gates, random: np.random.Generator) -> Gates:
    """Computes every block of a row, to spend what the budget has left."""
    gates[int(random.integers(1, len(gates)))] = True
    return gates


def _move_gate(gates: Gates, random: np.random.Generator) -> Gates:
    """Computes a block at another step than before."""
    rows, columns = np.nonzero(gates[1:])
    if not len(rows):
        return gates
    chosen = random.integers(len(rows))
    other = int(random.integers(1, len(gates)))
    gates[rows[chosen] + 1, columns[chosen]] = False
    gates[other, columns[chosen]] = True
    return gates


def _switch_gate(gates: Gates, random: np.random.Generator) -> Gates:
    """Switches one gate of a row that computes on or off."""
    rows = _computing_rows(gates)
    if not len(rows):
        return gates
    row, column = _any(rows, random), int(random.integers(gates.shape[1]))
    gates[row, column] = not gates[row, column]
    return gates


_CHANCES: dict[Move, int] = {
    _slide_row: 8,
    _slide_pair: 2,
    _move_row: 2,
    _fill_row: 2,
    _move_gate: 2,
    _switch_gate: 2,
}
"""The weights of the moves: where rows lie matters most, so most moves change that."""

MOVES = tuple(_CHANCES)

PROBABILITIES = np.array(list(_CHANCES.values())) / sum(_CHANCES.values())


def _computing_rows(gates: Gates) -> NDArray[np.intp]:
    """Returns the rows after the first with a gate that is on."""
    return np.flatnonzero(gates[1:].any(axis=1)) + 1


def _any(places: NDArray[np.intp] | list[int], random: np.random.Generator) -> int:
    return int(places[int(random.integers(len(places)))])


def _swapped(gates: Gates, row: int, other: int) -> Gates:
    gates[[row, other]] = gates[[other, row]]
    return gates
