"""Trains the weights of rows that are wholly off, by gradient through the pruned trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dipgo.search.checkpoint import load_checkpoint, restore, save_checkpoint, training_state
from dipgo.search.examples import Examples
from dipgo.search.fit_gaps import Fit, as_table
from dipgo.search.guards import check_finite
from dipgo.search.losses import Distance
from dipgo.search.refine.hard_trajectories import Gates, Outcome
from dipgo.search.supernet.row_gates import RowGates
from dipgo.search.supernet.supernet import SuperNet

LEARNING_RATE, WARM_UP = 0.1, 8
"""Of moves that are measured by the fitted trajectory's own error."""

LEAST_EFFECT = 1e-6
"""Of a direction, relative to the mean: those that do less are not told apart."""

OnIteration = Callable[[int, int, float], object]
"""Iterations done, of how many, and the distance of the latest batch."""


class ReuseWeights(nn.Module):
    """Weights f32[steps, terms], moved from where they were fitted.

    Predictions are much alike, so that weights which each change a lot change little together, and
    gaps are long or short. A move of 1 in any direction changes the state at the gap's end by
    `error`, root mean square, and moves in two directions change it in unlike ways.
    """

    start: Tensor
    directions: Tensor
    members: Tensor

    def __init__(self, fits: Sequence[Fit], steps: int, terms: int, error: float) -> None:
        super().__init__()
        directions = np.zeros((len(fits), terms, terms))
        members = np.zeros((steps, len(fits)))
        for index, fit in enumerate(fits):
            count = len(fit.weights)
            directions[index, :count, :count] = error * _directions(fit.effects)
            members[list(fit.gap.rows), index] = 1.0
        for name, values in (("directions", directions), ("members", members)):
            self._keep(name, values)
        self._keep("start", as_table(fits, steps, terms))
        self.moves = nn.Parameter(torch.zeros(len(fits), terms))

    def _keep(self, name: str, values: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self) -> Tensor:
        moved = torch.einsum("gij,gj->gi", self.directions, self.moves)
        return self.start + self.members @ moved


def _directions(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """f64[K, K], a direction a column: whitens `effects`, and leaves out what does nothing."""
    floor = LEAST_EFFECT * float(np.trace(effects)) / len(effects)
    if not floor:
        return np.zeros_like(effects)
    lower = np.linalg.cholesky(effects + floor * np.eye(len(effects)))
    return np.asarray(np.linalg.inv(lower).T, np.float64)


def train_reuse(
    net: SuperNet,
    examples: Examples,
    fitted: Outcome,
    terms: int,
    *,
    iterations: int,
    distance: Distance,
    identity: Mapping[str, Any],
    checkpoint: Path | None = None,
    on_iteration: OnIteration = lambda done, iterations, distance: None,
) -> NDArray[np.float64]:
    """Weights f64[steps, terms] from those that were fitted, for gates that stay as they are.

    Adam with a cosine to 0, one batch an iteration. Goes on from `checkpoint` as `exchange` does.
    """
    gates: Gates = fitted.gates
    module = ReuseWeights(fitted.fits, len(gates), terms, fitted.error).to(net.device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    found = None if checkpoint is None else load_checkpoint(checkpoint, identity)
    if found is not None:
        restore(found, module, optimizer)
    table = torch.tensor(gates, dtype=torch.float32, device=net.device)
    for iteration in range(found.iteration if found else 0, iterations):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, iterations)
        example = examples[iteration]
        latents = net(table, example.inputs, RowGates(table.amax(1), module()))
        loss = distance(latents, example.dense)
        optimizer.zero_grad()
        check_finite(loss, iteration, "the distance")
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        check_finite(module.moves, iteration, "the weights")
        if checkpoint is not None:
            save_checkpoint(checkpoint, iteration + 1, identity, training_state(module, optimizer))
        on_iteration(iteration + 1, iterations, float(loss.detach()))
    return np.asarray(module().detach().double().cpu().numpy(), np.float64)


def learning_rate(iteration: int, iterations: int) -> float:
    """A linear warm-up, and a cosine to 0."""
    cosine = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
    return LEARNING_RATE * min(1.0, (iteration + 1) / WARM_UP) * cosine
