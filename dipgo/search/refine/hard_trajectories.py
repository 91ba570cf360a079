"""Runs pruned trajectories with gates that are choices, and measures their distance to dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dipgo.search.examples import Example
from dipgo.search.fit_gaps import Fit, Gap, find_gaps, fit_filters, fit_gap
from dipgo.search.losses import Distance, l2_distance
from dipgo.search.supernet.gating import Gate
from dipgo.search.supernet.supernet import SuperNet
from dipgo.search.supernet.trajectory_state import Walk

Gates = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Gates, the weights fitted to them, and where they led: means over the examples.

    `distance` is the measure that decides, `error` the root mean square of the final latents'
    errors. `passed` has the walks of all examples as they were before an evaluation or a gap.
    """

    gates: Gates
    fits: tuple[Fit, ...]
    distance: float
    error: float
    passed: Mapping[int, tuple[Walk, ...]]


class Trajectories:
    """A runner of gates bool[steps, blocks] on examples.

    With `terms` above 0, rows that are wholly off weigh the latest `terms` predictions
    (`Walk.latest`), or apply filters of `filter_size` latent pixels a side to them. The weights are
    fitted during the run, gap by gap: each gap should end where dense passes, and starts where the
    gaps before it led.
    """

    def __init__(
        self,
        net: SuperNet,
        examples: Sequence[Example],
        terms: int,
        distance: Distance,
        filter_size: int = 0,
    ) -> None:
        self.net, self.terms, self.distance = net, terms, distance
        self.filter_size = filter_size
        self.examples = tuple(examples)
        self.rows = net.sampler.rows

    def of_first(self, count: int) -> Trajectories:
        """Returns the same on the first `count` examples only."""
        first = self.examples[:count]
        return Trajectories(self.net, first, self.terms, self.distance, self.filter_size)

    @torch.no_grad()
    def run(self, gates: Gates, base: Outcome | None = None, *, remember: bool = True) -> Outcome:
        """Runs the gates; what they share with the beginning of `base` is not run again.

        Args:
            gates: bool[steps, blocks].
            base: An earlier outcome that remembers, or None.
            remember: Whether the outcome can be a base for others, for which it keeps the caches of
                every evaluation of every example: they take memory.

        Returns:
            Where the gates lead.
        """
        at = 0 if base is None else self._parting(base, gates)
        if base is None:
            walks = [self.net.begin(example.inputs) for example in self.examples]
        else:
            walks = [walk.copy() for walk in base.passed[at]]
        earlier = base.passed if base else {}
        passed = {index: before for index, before in earlier.items() if index < at}
        fits = [fit for fit in (base.fits if base else ()) if fit.gap.first < at]
        gaps = {gap.first: gap for gap in find_gaps(self.rows, gates)} if self.terms else {}
        while walks[0].index < len(self.rows):
            at = walks[0].index
            if remember:
                passed[at] = tuple(walk.copy() for walk in walks)
            if at in gaps:
                fits.append(self._cross(walks, gaps[at]))
            else:
                self._evaluate(walks, gates[self.rows[at]])
        return self._outcome(gates, tuple(fits), passed, walks)

    def _parting(self, base: Outcome, gates: Gates) -> int:
        """Returns the last evaluation that `base` has passed up to which both are the same.

        A gap ends where the next row computes: it is the same if that row does in both.
        """
        changed = np.flatnonzero((gates != base.gates).any(axis=1))
        row = changed[0] if len(changed) else self.rows[-1]
        first = self.rows.index(row)
        after_a_gap = first > 0 and not base.gates[self.rows[first - 1]].any()
        if self.terms and after_a_gap and not gates[row].any():
            first -= 1
        return max(at for at in base.passed if at <= first)

    def _cross(self, walks: Sequence[Walk], gap: Gap) -> Fit:
        dense = [example.states for example in self.examples]
        if self.filter_size:
            fit = fit_filters(gap, walks, dense, self.terms, self.filter_size)
        else:
            fit = fit_gap(gap, walks, dense, self.terms)
        prediction = fit.prediction(self.net.device)
        for walk in walks:
            while walk.index < gap.end:
                self.net.advance(walk, None, False, prediction)
        return fit

    def _evaluate(self, walks: Sequence[Walk], gates: NDArray[np.bool_]) -> None:
        chosen: list[Gate] = [bool(gate) for gate in gates]
        for walk in walks:
            self.net.advance(walk, chosen if walk.index else None)

    def _outcome(
        self,
        gates: Gates,
        fits: tuple[Fit, ...],
        passed: Mapping[int, tuple[Walk, ...]],
        walks: Sequence[Walk],
    ) -> Outcome:
        ends = [
            (walk.result(), example.dense)
            for walk, example in zip(walks, self.examples, strict=True)
        ]
        distance = float(np.mean([float(self.distance(*pair)) for pair in ends]))
        error = float(np.sqrt(np.mean([float(l2_distance(*pair)) for pair in ends])))
        return Outcome(gates, fits, distance, error, passed)
