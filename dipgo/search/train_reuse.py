"""Trains the weights of rows that are wholly off, by gradient through the pruned trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dipgo.search.checkpoint import load_checkpoint, restore, save_checkpoint, training_state
from dipgo.search.examples import Examples
from dipgo.search.finite import check_finite
from dipgo.search.losses import Distance
from dipgo.search.supernet import RowGates, SuperNet
from dipgo.search.trajectories import Gates

LEARNING_RATE, WARM_UP = 0.005, 8
"""Adam moves every weight alike at first: more, or more at once, throws trajectories off."""
OnIteration = Callable[[int, int, float], object]
"""Iterations done, of how many, and the distance of the latest batch."""


class ReuseWeights(nn.Module):
    """f32[steps, terms]."""

    def __init__(self, start: NDArray[np.float64]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(start, dtype=torch.float32))


def train_reuse(
    net: SuperNet,
    examples: Examples,
    gates: Gates,
    start: NDArray[np.float64],
    *,
    iterations: int,
    distance: Distance,
    identity: Mapping[str, Any],
    checkpoint: Path | None = None,
    on_iteration: OnIteration = lambda done, iterations, distance: None,
) -> NDArray[np.float64]:
    """Weights f64[steps, terms] from `start`, for gates that stay as they are.

    Adam with a cosine to 0, one batch an iteration. Goes on from `checkpoint` as `exchange` does.
    """
    module = ReuseWeights(start).to(net.device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    found = None if checkpoint is None else load_checkpoint(checkpoint, identity)
    if found is not None:
        restore(found, module, optimizer)
    table = torch.tensor(gates, dtype=torch.float32, device=net.device)
    for iteration in range(found.iteration if found else 0, iterations):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, iterations)
        example = examples[iteration]
        latents = net(table, example.inputs, RowGates(table.amax(1), module.weights))
        assert example.dense is not None
        loss = distance(latents, example.dense)
        optimizer.zero_grad()
        check_finite(loss, iteration, "the distance")
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        check_finite(module.weights, iteration, "the weights")
        if checkpoint is not None:
            save_checkpoint(checkpoint, iteration + 1, identity, training_state(module, optimizer))
        on_iteration(iteration + 1, iterations, float(loss.detach()))
    return np.asarray(module.weights.detach().double().cpu().numpy(), np.float64)


def learning_rate(iteration: int, iterations: int) -> float:
    """A linear warm-up, and a cosine to 0."""
    cosine = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
    return LEARNING_RATE * min(1.0, (iteration + 1) / WARM_UP) * cosine
