"""Calibration: what schedules need to know of a model, measured along its dense trajectory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipgo.graph import Dependence, Node
from dipgo.search.changes import Changes
from dipgo.search.supernet import Caches, History, SuperNet, Values

__all__ = ["Changes", "Loss", "activation_changes", "removal_curvature", "removal_losses"]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of the latents f32[B, C, h, w] that gates yield and those of the dense trajectory: f32[]."""

OnGate: TypeAlias = Callable[[int, int], object]
"""Called after every gate: how many are done, of how many."""


@torch.no_grad()
def activation_changes(net: SuperNet, inputs: Mapping[str, Tensor], max_lag: int = 3) -> Changes:
    """The relative L1 changes of all blocks' outputs over lags 1 to `max_lag`.

    A block's outputs count as one. Where a timestep is evaluated more than once, the last
    evaluation counts. Only the last `max_lag` steps' outputs are held.
    """
    steps = len(net.sampler.timesteps)
    relative = np.full((max_lag, steps, len(net.blocks)), np.nan)
    run = _Run.start(net, inputs)
    outputs: dict[int, list[Tensor]] = {}
    for row in net.sampler.rows:
        outputs[row] = _block_outputs(net, run.step())
        outputs.pop(row - max_lag - 1, None)
        for lag in range(1, max_lag + 1):
            if row - lag in outputs:
                changes = map(_relative_change, outputs[row], outputs[row - lag])
                relative[lag - 1, row] = list(changes)
    return Changes(net.blocks, relative)


def _block_outputs(net: SuperNet, values: Values) -> list[Tensor]:
    """All outputs of each block as one f32[batch, n], in the order of the gates' columns."""
    flat = {
        node.name: torch.cat([values[one.name].flatten(1) for one in node.outputs], dim=1)
        for node in net.graph.blocks
    }
    return [flat[block] for block in net.blocks]


def _relative_change(now: Tensor, before: Tensor) -> float:
    """Mean over the batch of ‖now − before‖₁ / ‖now‖₁, for f32[batch, n]."""
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
    """The loss f64[steps, blocks] of the final latents where that one gate alone is off.

    Up to its step a trajectory without one gate is the dense one, so that only the rest of it is
    run. Row 0 is always computed: its losses are inf.
    """
    rows, columns = len(net.sampler.timesteps), len(net.blocks)
    losses = np.full((rows, columns), np.inf)
    run, seen = _Run.start(net, inputs), {net.sampler.rows[0]}
    for row in net.sampler.rows:
        if row not in seen:
            for column in range(columns):
                latents = run.fork().finish_without(row, net.blocks[column])
                losses[row, column] = float(loss(latents, dense_latents))
                on_gate((len(seen) - 1) * columns + column + 1, (rows - 1) * columns)
            seen.add(row)
        run.step()
    return losses


def removal_curvature(
    net: SuperNet, inputs: Mapping[str, Tensor], *, probes: int = 16, seed: int = 0
) -> NDArray[np.float64]:
    """A cheap stand-in for `removal_losses` with the mean squared error: f64[steps, blocks].

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


class _Run:
    """A trajectory that can be stepped through, and forked at any step."""

    def __init__(self, net: SuperNet, given: Values, history: History, caches: Caches) -> None:
        self.net, self.given, self.history, self.caches = net, given, history, caches

    @classmethod
    def start(cls, net: SuperNet, inputs: Mapping[str, Tensor]) -> _Run:
        given = dict(inputs)
        noise = given.pop(net.state)
        for node in net.graph.nodes:
            if node.dependence == Dependence.PROMPT:
                _call(net, node, given)
        return cls(net, given, History(net.sampler, noise), {})

    def fork(self) -> _Run:
        history = History(self.history.sampler, self.history.noise)
        history.inputs, history.outputs = [*self.history.inputs], [*self.history.outputs]
        return _Run(self.net, self.given, history, {**self.caches})

    def step(self, off: str | None = None) -> Values:
        """All values of the next evaluation, in which the block `off` is reused."""
        index = len(self.history.outputs)
        state = self.history.next_input(index)
        values = self.net.values_of_step(self.given, self.net.sampler.rows[index], state)
        for node in self.net.graph.nodes:
            if Dependence.STATE not in node.dependence:
                continue
            if node.name == off:
                self._reuse(node, values)
            else:
                _call(self.net, node, values)
                self._keep(node, values)
        self.history.outputs.append(values[self.net.graph.output])
        return values

    def _keep(self, node: Node, values: Values) -> None:
        """What a block would yield, or add, where it is not computed."""
        if node.kind == "block":
            results = tuple(values[value.name] for value in node.outputs)
            entered = self._entered(node, values)
            self.caches[node.name] = results if entered is None else (results[0] - entered,)

    def _reuse(self, node: Node, values: Values) -> None:
        entered, kept = self._entered(node, values), self.caches[node.name]
        if entered is not None:
            kept = (entered if self.net.backup[node.name] == "identity" else entered + kept[0],)
        values.update(zip((value.name for value in node.outputs), kept, strict=True))

    def _entered(self, node: Node, values: Values) -> Tensor | None:
        """What the block adds to, where its backup is not its output."""
        if self.net.backup[node.name] == "output":
            return None
        name = self.net.carriers[node.name]
        assert name is not None, "a backup that needs an input to add to"
        return values[name]

    def finish_without(self, row: int, block: str) -> Tensor:
        """The final latents where one gate is off, and all others of the steps left are on."""
        for index in range(len(self.history.outputs), len(self.net.sampler.rows)):
            self.step(block if self.net.sampler.rows[index] == row else None)
        return self.history.result()


def _call(net: SuperNet, node: Node, values: Values) -> None:
    results = net.functions[node.name](*(values[name] for name in node.inputs))
    values.update(zip((value.name for value in node.outputs), results, strict=True))
