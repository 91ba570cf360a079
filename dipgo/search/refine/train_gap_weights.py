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
"""The settings of Adam, for moves measured by the fitted trajectory's own error."""

LEAST_EFFECT = 1e-6
"""The effect of a direction, relative to the mean, below which directions are not distinguished."""

OnIteration = Callable[[int, int, float], object]
"""A function called with the iterations done, those in all, and the latest batch's distance."""


class ReuseWeights(nn.Module):
    """Weights f32[steps, terms], moved from where they were fitted.

    Predictions are much alike, so that weights which each change a lot change little together, and
    gaps are long or short. So directions are scaled: a move of 1 in any direction changes the state
    at the gap's end by `error`, root mean square, and moves in two directions change it in
    different ways.

    Args:
        fits: The fit of each gap.
        steps: The number of rows.
        terms: The number of weights of a row.
        error: The error of the fitted trajectory, root mean square.
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
        """Returns the weights f32[steps, terms]."""
        moved = torch.einsum("gij,gj->gi", self.directions, self.moves)
        return self.start + self.members @ moved


def _directions(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns f64[K, K] with a direction in each column, which whitens `effects`.

    Directions without effect are left out.
    """
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
    """Trains fitted weights for gates that stay as they are.

    Adam with a cosine to 0, and one batch in each iteration.

    Args:
        net: The SuperNet.
        examples: The batches, by iteration.
        fitted: The gates with the weights to begin with.
        terms: The number of weights of a row.
        iterations: The number of iterations.
        distance: The loss.
        identity: The facts that a checkpoint must agree with.
        checkpoint: The file to resume from and to save to, as in `exchange`.
        on_iteration: Called after each iteration.

    Returns:
        The weights f64[steps, terms].

    Raises:
        DipgoError: The distance or a weight is not finite.
    """
    gates: Gates = fitted.gates
    module = ReuseWeights(fitted.fits, len(gates), terms, fitted.error).to(net.device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    saved = None if checkpoint is None else load_checkpoint(checkpoint, identity)
    if saved is not None:
        restore(saved, module, optimizer)
    table = torch.tensor(gates, dtype=torch.float32, device=net.device)
    for iteration in range(saved.iteration if saved else 0, iterations):
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
    """Returns the learning rate: a linear warm-up, and a cosine to 0."""
    cosine = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
    return LEARNING_RATE * min(1.0, (iteration + 1) / WARM_UP) * cosine
