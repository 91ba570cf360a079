"""Measures, along a model's dense trajectory, the facts that schedules are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipgo.schedules.activation_changes import Changes
from dipgo.search.supernet.gating import Gate
from dipgo.search.supernet.supernet import SuperNet
from dipgo.search.supernet.trajectory_state import Walk

__all__ = ["Changes", "Loss", "activation_changes", "removal_curvature", "removal_losses"]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of the latents f32[B, C, h, w] that gates yield and the dense ones, to f32[]."""

OnGate: TypeAlias = Callable[[int, int], object]
"""A function called after every gate with the number of gates done and the number in all."""


@torch.no_grad()
def activation_changes(net: SuperNet, inputs: Mapping[str, Tensor], max_lag: int = 3) -> Changes:
    """Returns the relative L1 changes, over lags 1 to `max_lag`, of what blocks would reuse.

    Blocks reuse their outputs or their deltas; all outputs of a block together have one change.
    Where a timestep is evaluated more than once, the last evaluation counts. Only the outputs of
    the last `max_lag` steps are held in memory.

    Args:
        net: The SuperNet, whose blocks are measured.
        inputs: The inputs of one trajectory.
        max_lag: The longest lag, in steps.
    """
    steps = len(net.sampler.timesteps)
    relative = np.full((max_lag, steps, len(net.blocks)), np.nan)
    walk = net.begin(inputs)
    outputs: dict[int, list[Tensor]] = {}
    for row in net.sampler.rows:
        net.advance(walk, None)
        outputs[row] = [torch.cat([o.flatten(1) for o in walk.caches[b]], 1) for b in net.blocks]
        outputs.pop(row - max_lag - 1, None)
        for lag in range(1, max_lag + 1):
            if row - lag in outputs:
                changes = map(_relative_change, outputs[row], outputs[row - lag])
                relative[lag - 1, row] = list(changes)
    return Changes(net.blocks, relative)


def _relative_change(now: Tensor, before: Tensor) -> float:
    """Returns the mean over the batch of ‖now − before‖₁ / ‖now‖₁, for f32[batch, n]."""
    size = now.abs().sum(dim=1).clamp_min(torch.finfo(now.dtype).tiny)
    return float(((now - before).abs().sum(dim=1) / size).mean())


@torch.no_grad()
def removal_losses(
    net: SuperNet,
    inputs: Mapping[str, Tensor],
    dense_latents: Tensor,
    *,
    loss: Loss,
    on_gate: OnGate = lambda done, total: None,
) -> NDArray[np.float64]:
    """Returns, for each gate, the loss f64[steps, blocks] when that gate alone is off.

    A trajectory with one gate off equals the dense one up to that gate's step, so only the rest
    of it is run. Row 0 is always computed: its losses are inf.

    Args:
        net: The SuperNet.
        inputs: The inputs of one trajectory.
        dense_latents: f32[B, C, h, w], where the dense trajectory ends.
        loss: The loss of the final latents against `dense_latents`.
        on_gate: Called after every gate.
    """
    rows, columns = len(net.sampler.timesteps), len(net.blocks)
    losses = np.full((rows, columns), np.inf)
    walk, seen = net.begin(inputs), {net.sampler.rows[0]}
    for row in net.sampler.rows:
        if row not in seen:
            for column in range(columns):
                latents = _finish_without(net, walk.copy(), row, column)
                losses[row, column] = float(loss(latents, dense_latents))
                on_gate((len(seen) - 1) * columns + column + 1, (rows - 1) * columns)
            seen.add(row)
        net.advance(walk, None)
    return losses


def removal_curvature(
    net: SuperNet, inputs: Mapping[str, Tensor], *, probes: int = 16, seed: int = 0
) -> NDArray[np.float64]:
    """Returns a cheap stand-in for `removal_losses` of the mean squared error: f64[steps, blocks].

    With all gates on, that loss and its gradient are 0, and its Gauss-Newton curvature is
    ‖∂latents/∂gate‖² / n. It is estimated from `probes` backward passes, one for each random v,
    as the mean of (vᵀ ∂latents/∂gate)² / n. Row 0 is inf.
    """
    shape = (len(net.sampler.timesteps), len(net.blocks))
    gates = torch.ones(shape, device=inputs[net.state].device, requires_grad=True)
    latents = net(gates, inputs)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(shape, dtype=torch.float64)
    for probe in range(probes):
        direction = torch.randn(latents.shape, generator=generator).to(latents.device)
        (slope,) = torch.autograd.grad(latents, gates, direction, retain_graph=probe < probes - 1)
        total += slope.double().cpu() ** 2
    curvature: NDArray[np.float64] = (total / probes / latents.numel()).numpy()
    curvature[0] = np.inf
    return curvature


def _finish_without(net: SuperNet, walk: Walk, row: int, column: int) -> Tensor:
    """Returns the final latents when one gate is off and all others of the steps left are on."""
    gates: list[Gate] = [index != column for index in range(len(net.blocks))]
    for other in net.sampler.rows[walk.index :]:
        net.advance(walk, gates if other == row else None)
    return walk.result()
