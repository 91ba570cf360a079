"""Local exchange: gates trade places while that brings the trajectory's end nearer to dense.

What the gradient finds is rounded to choices; an exchange tries choices as they will be run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dipgo.search.budget import TOLERANCE, fits, prune_dead
from dipgo.search.checkpoint import load_checkpoint, save_checkpoint
from dipgo.search.cost import CostModel
from dipgo.search.finite import check_finite
from dipgo.search.trajectories import Gates, Outcome, Trajectories

FARTHEST_SHIFT = 3
OnTry = Callable[[int, int, float], object]
"""Tries done, of how many, and the distance now."""


def exchange(
    trajectories: Trajectories,
    cost: CostModel,
    gates: Gates,
    kept: float,
    *,
    tries: int,
    seed: int,
    identity: Mapping[str, Any],
    checkpoint: Path | None = None,
    on_try: OnTry = lambda done, tries, distance: None,
) -> Gates:
    """The best gates found in `tries` tries, none of which costs more than `kept`.

    Nor do they cost less than `kept` by the tolerance, unless `gates` do.

    Each try has random numbers of its own, so that one that goes on from `checkpoint` finds the
    same. Raises DipgoError where the first distance is not finite.
    """
    found = None if checkpoint is None else load_checkpoint(checkpoint, identity)
    done = 0
    if found is not None:
        gates, done = found.tensors["gates"].numpy().astype(np.bool_), found.iteration
    best = trajectories.run(gates)
    check_finite(torch.tensor(best.distance), done, "the distance")
    for turn in range(done, tries):
        candidate = propose(best.gates, np.random.default_rng((seed, turn)))
        improved = _try(trajectories, cost, best, candidate, kept)
        if checkpoint is not None and (improved is not best or turn + 1 == tries):
            tensors = {"gates": torch.from_numpy(improved.gates.astype(np.uint8))}
            save_checkpoint(checkpoint, turn + 1, identity, tensors)
        best = improved
        on_try(turn + 1, tries, best.distance)
    return best.gates


def _try(
    trajectories: Trajectories, cost: CostModel, best: Outcome, candidate: Gates, kept: float
) -> Outcome:
    candidate = prune_dead(candidate, cost)
    share = cost.kept(candidate)
    least = min(kept - TOLERANCE, cost.kept(best.gates))
    if (candidate == best.gates).all() or not fits(share, kept) or not fits(least, share):
        return best
    return trajectories.improve(best, candidate) or best


def propose(gates: Gates, random: np.random.Generator) -> Gates:
    """Another table: a row moved or filled, a gate moved to another row, or switched on or off."""
    moves = (_shift_row, _shift_row, _move_row, _fill_row, _move_gate, _switch_gate)
    return moves[random.integers(len(moves))](gates.copy(), random)


def _shift_row(gates: Gates, random: np.random.Generator) -> Gates:
    """A row that computes changes places with one nearby."""
    row = _computing_row(gates, random)
    shift = int(random.integers(1, FARTHEST_SHIFT + 1)) * (1 if random.random() < 0.5 else -1)
    return _swapped(gates, row, min(len(gates) - 1, max(1, row + shift)))


def _move_row(gates: Gates, random: np.random.Generator) -> Gates:
    """A row that computes changes places with any other."""
    return _swapped(gates, _computing_row(gates, random), int(random.integers(1, len(gates))))


def _fill_row(gates: Gates, random: np.random.Generator) -> Gates:
    """A row computes every block: what the budget has left is spent."""
    gates[int(random.integers(1, len(gates)))] = True
    return gates


def _move_gate(gates: Gates, random: np.random.Generator) -> Gates:
    """A block is computed at another step than before."""
    rows, columns = np.nonzero(gates[1:])
    if not len(rows):
        return gates
    chosen = random.integers(len(rows))
    other = int(random.integers(1, len(gates)))
    gates[rows[chosen] + 1, columns[chosen]] = False
    gates[other, columns[chosen]] = True
    return gates


def _switch_gate(gates: Gates, random: np.random.Generator) -> Gates:
    """One gate of a row that computes is switched off, or another on."""
    row = _computing_row(gates, random)
    column = int(random.integers(gates.shape[1]))
    gates[row, column] = not gates[row, column]
    return gates


def _computing_row(gates: Gates, random: np.random.Generator) -> int:
    """A row after the first with a gate that is on, if there is one."""
    rows = np.flatnonzero(gates[1:].any(axis=1)) + 1
    return int(rows[random.integers(len(rows))]) if len(rows) else 1


def _swapped(gates: Gates, one: int, other: int) -> Gates:
    gates[[one, other]] = gates[[other, one]]
    return gates
