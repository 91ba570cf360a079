"""Pruned trajectories with gates that are choices: how far they end from the dense ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipgo.search.examples import Examples
from dipgo.search.losses import Distance
from dipgo.search.reuse import fit_reuse
from dipgo.search.supernet import Gate, SuperNet
from dipgo.search.walk import Walk

Gates = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Gates, each example's distance to dense, and where it was before every evaluation."""

    gates: Gates
    distances: tuple[float, ...]
    walks: tuple[tuple[Walk, ...], ...]

    @property
    def distance(self) -> float:
        """Mean over the examples."""
        return float(np.mean(self.distances))


class Trajectories:
    """Runs gates bool[steps, blocks] on the first `count` examples.

    With `terms` above 0, rows that are wholly off weigh that many of the latest predictions.
    `distance` must not be negative.
    """

    def __init__(
        self, net: SuperNet, examples: Examples, count: int, terms: int, distance: Distance
    ) -> None:
        self.net, self.terms, self.distance = net, terms, distance
        self.examples = [examples[index] for index in range(count)]
        self.predictions = self._dense_predictions() if terms else np.zeros((0, 0))

    @torch.no_grad()
    def _dense_predictions(self) -> NDArray[np.float64]:
        """f64[evaluations, n] of all examples."""
        columns = []
        for example in self.examples:
            walk = self.net.begin(example.inputs)
            for _ in self.net.sampler.rows:
                self.net.advance(walk, None)
            columns.append(torch.stack([one.flatten() for one in walk.outputs]))
        return np.asarray(torch.cat(columns, 1).double().cpu().numpy(), np.float64)

    def fit(self, gates: Gates) -> NDArray[np.float64] | None:
        """Weights for these gates, None without terms."""
        if not self.terms:
            return None
        return fit_reuse(self.predictions, self.net.sampler, gates, self.terms)

    def run(self, gates: Gates) -> Outcome:
        """Where the gates lead."""
        weights = self.fit(gates)
        ends = [self._run_one(index, gates, weights, ()) for index in range(len(self.examples))]
        distances, walks = zip(*ends, strict=True)
        return Outcome(gates, distances, walks)

    def improve(self, base: Outcome, gates: Gates) -> Outcome | None:
        """Where the gates lead if that is nearer to dense than `base`, else None.

        What they share with the beginning of `base` is not run again. The examples that are
        farthest from dense come first, and the rest are not run once these alone are too far.
        """
        first = first_difference(gates, base.gates)
        weights = self.fit(gates)
        distances, walks = list(base.distances), list(base.walks)
        allowed, total = sum(base.distances), 0.0
        for index in np.argsort(base.distances)[::-1]:
            shared = self._shared(base.walks[index], first)
            distances[index], walks[index] = self._run_one(int(index), gates, weights, shared)
            total += distances[index]
            if not total < allowed:
                return None
        return Outcome(gates, tuple(distances), tuple(walks))

    @torch.no_grad()
    def _run_one(
        self,
        index: int,
        gates: Gates,
        weights: NDArray[np.float64] | None,
        shared: Sequence[Walk],
    ) -> tuple[float, tuple[Walk, ...]]:
        """An example's distance and walks; it goes on from the last of `shared`."""
        example = self.examples[index]
        walk = shared[-1].copy() if shared else self.net.begin(example.inputs)
        passed = list(shared[:-1])
        while walk.index < len(self.net.sampler.rows):
            passed.append(walk.copy())
            self._advance(walk, gates, weights)
        assert example.dense is not None
        return float(self.distance(walk.result(), example.dense)), tuple(passed)

    def _shared(self, walks: Sequence[Walk], first: int) -> Sequence[Walk]:
        """Those up to, and with, the evaluation at which row `first` comes."""
        rows = self.net.sampler.rows
        return walks[: 1 + next(i for i, row in enumerate(rows) if row >= first)]

    def _advance(self, walk: Walk, gates: Gates, weights: NDArray[np.float64] | None) -> None:
        row = self.net.sampler.rows[walk.index]
        weighed: Tensor | None = None
        if weights is not None:
            weighed = torch.tensor(weights[row], dtype=torch.float32, device=self.net.device)
        chosen: list[Gate] = [bool(gate) for gate in gates[row]]
        self.net.advance(walk, chosen if row else None, bool(gates[row].any()), weighed)


def first_difference(one: Gates, other: Gates) -> int:
    """The first row in which two tables differ; the last row where they do not."""
    rows = np.flatnonzero((one != other).any(axis=1))
    return int(rows[0]) if len(rows) else len(one) - 1
