"""Local exchange: gates trade places while that brings the trajectory's end nearer to dense.

The gradient's result is rounded to choices; an exchange tries choices as they will be run. Most
tries are no better, and a few examples show it: only the others run on all examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipgo.search.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dipgo.search.cost.budget import TOLERANCE, fits, prune_dead
from dipgo.search.cost.model import CostModel
from dipgo.search.guards import check_finite
from dipgo.search.refine.hard_trajectories import Gates, Outcome, Trajectories
from dipgo.search.refine.moves import propose

DRAWS = 50
"""The moves drawn for one try before it is given up: most were tried or cost too much."""

SAVE_EVERY = 20

GLANCE = 2
"""The number of examples that a try is run on first."""

MARGIN = 1.1
"""The factor on the best distance of the first examples beyond which a try is given up.

Weights that are fitted to few examples, and these examples themselves, favour one try or another by
some percent.
"""

OnTry = Callable[[int, int, float], object]
"""A function called with the tries done, the tries in all, and the distance now."""


@dataclass(frozen=True, slots=True)
class _Best:
    """The best gates so far: where they lead on all examples, and on the first few."""

    outcome: Outcome
    glance: Outcome


@dataclass(frozen=True, slots=True)
class _Race:
    """A comparison by the distance to dense; with few examples both trajectories are the same."""

    everything: Trajectories
    glance: Trajectories

    def start(self, gates: Gates) -> _Best:
        outcome = self.everything.run(gates)
        few = self.glance is self.everything
        return _Best(outcome, outcome if few else self.glance.run(gates))

    def run(self, gates: Gates, best: _Best) -> _Best:
        """Returns the better of the two, or `best` if they are equal."""
        glance = self.glance.run(gates, best.glance)
        if self.glance is self.everything:
            return _Best(glance, glance) if glance.distance < best.outcome.distance else best
        if not glance.distance <= MARGIN * best.glance.distance:
            return best
        outcome = self.everything.run(gates, best.outcome)
        return _Best(outcome, glance) if outcome.distance < best.outcome.distance else best


@dataclass
class _Tried:
    """The tables that were run, and the first one: none is run twice."""

    tables: dict[bytes, None]

    @classmethod
    def of(cls, checkpoint: Checkpoint | None, gates: Gates) -> _Tried:
        if checkpoint is None:
            return cls({})
        rows = checkpoint.tensor("tried", (None, -(-gates.size // 8)), torch.uint8)
        return cls({row.tobytes(): None for row in rows.numpy()})

    def add(self, gates: Gates) -> bool:
        """Adds a table and returns whether it is new."""
        key = np.packbits(gates).tobytes()
        new = key not in self.tables
        self.tables[key] = None
        return new

    def tensor(self) -> Tensor:
        """Returns u8[tables, bytes]."""
        rows = [np.frombuffer(key, np.uint8) for key in self.tables]
        return torch.from_numpy(np.stack(rows))


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
    """Returns the best gates after `tries` tries, none of which costs more than `kept`.

    Nor does a try cost less than `kept` by more than the tolerance, unless `gates` do. Each try has
    its own random numbers, so that a run resumed from `checkpoint` ends with the same gates.

    Args:
        trajectories: The trajectories to compare gates on.
        cost: The cost of gates.
        gates: bool[steps, blocks] to begin with.
        kept: The share of the dense cost that may be kept.
        tries: The number of tries.
        seed: The seed of the random numbers.
        identity: The facts that a checkpoint must agree with.
        checkpoint: The file to resume from and to save to.
        on_try: Called after each try.

    Raises:
        DipgoError: The first distance is not finite.
    """
    saved = None if checkpoint is None else load_checkpoint(checkpoint, identity)
    done, tried = 0, _Tried.of(saved, gates)
    if saved is not None:
        table = saved.tensor("gates", gates.shape, torch.uint8)
        gates, done = table.numpy().astype(np.bool_), saved.iteration
    few = len(trajectories.examples) <= GLANCE
    race = _Race(trajectories, trajectories if few else trajectories.of_first(GLANCE))
    best = race.start(gates)
    check_finite(torch.tensor(best.outcome.distance), done, "the distance")
    tried.add(gates)
    for turn in range(done, tries):
        random, before = np.random.default_rng((seed, turn)), best
        candidate = _draw(best.outcome.gates, cost, kept, tried, random)
        best = best if candidate is None else race.run(candidate, best)
        better = best is not before
        if checkpoint is not None and (better or not (turn + 1) % SAVE_EVERY or turn + 1 == tries):
            state = {"gates": torch.from_numpy(best.outcome.gates.astype(np.uint8))}
            save_checkpoint(checkpoint, turn + 1, identity, {**state, "tried": tried.tensor()})
        on_try(turn + 1, tries, best.outcome.distance)
    return best.outcome.gates


def _draw(
    gates: Gates, cost: CostModel, kept: float, tried: _Tried, random: np.random.Generator
) -> Gates | None:
    """Returns a new table within the share, or None if none is drawn."""
    least = min(kept - TOLERANCE, cost.kept(gates))
    for _ in range(DRAWS):
        candidate = prune_dead(propose(gates, random), cost)
        share = cost.kept(candidate)
        if fits(share, kept) and fits(least, share) and tried.add(candidate):
            return candidate
    return None
