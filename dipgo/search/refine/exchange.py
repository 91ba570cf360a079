"""Local exchange: gates trade places while that brings the trajectory's end nearer to dense.

What the gradient finds is rounded to choices; an exchange tries choices as they will be run. Most
tries are no good, and a few examples show it: all are run for the others alone.
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
"""Moves that are drawn for one try before it is given up: most were tried or are too dear."""

SAVE_EVERY = 20

GLANCE = 2
"""Examples that a try is run on first."""

MARGIN = 1.1
"""Times the distance of the best there: beyond, a try is given up. Weights that are fitted to few
examples, and these examples themselves, favour one try or another by some percent."""

OnTry = Callable[[int, int, float], object]
"""Tries done, of how many, and the distance now."""


@dataclass(frozen=True, slots=True)
class _Best:
    """The best gates so far: where they lead on all examples, and on the first few."""

    found: Outcome
    glance: Outcome


@dataclass(frozen=True, slots=True)
class _Race:
    """Who ends nearer to dense; the same trajectories twice where there are few examples."""

    everything: Trajectories
    glance: Trajectories

    def start(self, gates: Gates) -> _Best:
        found = self.everything.run(gates)
        few = self.glance is self.everything
        return _Best(found, found if few else self.glance.run(gates))

    def run(self, gates: Gates, best: _Best) -> _Best:
        """The better of the two, the one that was there first if they are equal."""
        glance = self.glance.run(gates, best.glance)
        if self.glance is self.everything:
            return _Best(glance, glance) if glance.distance < best.found.distance else best
        if not glance.distance <= MARGIN * best.glance.distance:
            return best
        found = self.everything.run(gates, best.found)
        return _Best(found, glance) if found.distance < best.found.distance else best


@dataclass
class _Tried:
    """Tables that were run, or are the first: none is run twice."""

    tables: dict[bytes, None]

    @classmethod
    def of(cls, checkpoint: Checkpoint | None) -> _Tried:
        rows = checkpoint.tensors["tried"].numpy() if checkpoint else ()
        return cls({row.tobytes(): None for row in rows})

    def add(self, gates: Gates) -> bool:
        """Whether it is new."""
        key = np.packbits(gates).tobytes()
        new = key not in self.tables
        self.tables[key] = None
        return new

    def tensor(self) -> Tensor:
        """u8[tables, bytes]."""
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
    """The best gates found in `tries` tries, none of which costs more than `kept`.

    Nor do they cost less than `kept` by the tolerance, unless `gates` do.

    Each try has random numbers of its own, so that one that goes on from `checkpoint` finds the
    same. Raises DipgoError where the first distance is not finite.
    """
    found = None if checkpoint is None else load_checkpoint(checkpoint, identity)
    done, tried = 0, _Tried.of(found)
    if found is not None:
        gates, done = found.tensors["gates"].numpy().astype(np.bool_), found.iteration
    few = len(trajectories.examples) <= GLANCE
    race = _Race(trajectories, trajectories if few else trajectories.of_first(GLANCE))
    best = race.start(gates)
    check_finite(torch.tensor(best.found.distance), done, "the distance")
    tried.add(gates)
    for turn in range(done, tries):
        random, before = np.random.default_rng((seed, turn)), best
        candidate = _draw(best.found.gates, cost, kept, tried, random)
        best = best if candidate is None else race.run(candidate, best)
        better = best is not before
        if checkpoint is not None and (better or not (turn + 1) % SAVE_EVERY or turn + 1 == tries):
            state = {"gates": torch.from_numpy(best.found.gates.astype(np.uint8))}
            save_checkpoint(checkpoint, turn + 1, identity, {**state, "tried": tried.tensor()})
        on_try(turn + 1, tries, best.found.distance)
    return best.found.gates


def _draw(
    gates: Gates, cost: CostModel, kept: float, tried: _Tried, random: np.random.Generator
) -> Gates | None:
    """A table that is new and within the share, if one is drawn."""
    least = min(kept - TOLERANCE, cost.kept(gates))
    for _ in range(DRAWS):
        candidate = prune_dead(propose(gates, random), cost)
        share = cost.kept(candidate)
        if fits(share, kept) and fits(least, share) and tried.add(candidate):
            return candidate
    return None
