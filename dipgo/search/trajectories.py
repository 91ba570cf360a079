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
    """Gates, their mean distance to dense, and where each example was before every evaluation."""

    gates: Gates
    distance: float
    walks: tuple[tuple[Walk, ...], ...]


class Trajectories:
    """Runs gates bool[steps, blocks] on the first `count` examples.

    With `terms` above 0, rows that are wholly off weigh that many of the latest predictions.
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

    @torch.no_grad()
    def run(self, gates: Gates, base: Outcome | None = None) -> Outcome:
        """Where the gates lead; what they share with the beginning of `base` is not run again."""
        first = 0 if base is None else first_difference(gates, base.gates)
        weights = self.fit(gates)
        walks, distances = [], []
        for index, example in enumerate(self.examples):
            before = [] if base is None else self._shared(base.walks[index], first)
            walk = before[-1].copy() if before else self.net.begin(example.inputs)
            passed = before[:-1]
            while walk.index < len(self.net.sampler.rows):
                passed.append(walk.copy())
                self._advance(walk, gates, weights)
            assert example.dense is not None
            distances.append(float(self.distance(walk.result(), example.dense)))
            walks.append(tuple(passed))
        return Outcome(gates, float(np.mean(distances)), tuple(walks))

    def _shared(self, walks: Sequence[Walk], first: int) -> list[Walk]:
        """Those up to, and with, the evaluation at which row `first` comes."""
        rows = self.net.sampler.rows
        return list(walks[: 1 + next(i for i, row in enumerate(rows) if row >= first)])

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
