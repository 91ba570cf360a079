"""The SuperNet: the traced denoiser over all steps, with a gate on every block.

It runs the same traced graph that is exported, so the search judges what is deployed. A gate
mixes the block's outputs with those that it would reuse, and later steps read the mixture from
the cache. A gate of a whole row mixes the prediction, in the same way, with one made of earlier
predictions.

Source: DiP-GO (arXiv 2410.16942), section 3.2, and the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dipgo.compiler.trace.trace import Traced
from dipgo.ir.graph import BlockGraph, Dependence, Node
from dipgo.ir.sampler import Sampler, draw_name
from dipgo.ir.subnet.backups import BACKUPS
from dipgo.search.supernet.gating import (
    Gate,
    Prediction,
    choice,
    combined,
    gated,
    predicted,
    shifted,
)
from dipgo.search.supernet.row_gates import RowGates
from dipgo.search.supernet.trajectory_state import Caches, Walk

Values: TypeAlias = dict[str, Tensor]


class SuperNet(nn.Module):
    """The denoiser over all evaluations of a sampler, with gates f32[steps, blocks].

    Its inputs are those of the traced graph but for the timestep.

    Args:
        traced: The traced denoiser.
        sampler: The sampler.
        blocks: The gated blocks, in the order of the gates' columns.
        backup: A word for each block.
        checkpointing: Whether activations are computed again in the backward pass, so that only
            states and caches are kept for every step.
        skip_closed: Whether a block whose gate is closed is skipped even if the gate has a
            gradient; straight-through gates need it computed.
        halves: Whether a prediction's unconditional half, of a graph with guidance, is weighted
            as well.
    """

    def __init__(
        self,
        traced: Traced,
        sampler: Sampler,
        blocks: Sequence[str],
        backup: Sequence[str],
        *,
        checkpointing: bool = True,
        skip_closed: bool = True,
        halves: bool = False,
    ) -> None:
        super().__init__()
        self.graph: BlockGraph = traced.graph
        self.sampler, self.checkpointing = sampler, checkpointing
        self.skip_closed = skip_closed
        names = (self.graph.output, self.graph.unconditional if halves else None)
        self.predicted = tuple(name for name in names if name)
        self.blocks = tuple(blocks)
        self.column = {name: column for column, name in enumerate(blocks)}
        words = dict(zip(blocks, backup, strict=True))
        self.backups = {name: BACKUPS[word] for name, word in words.items()}
        self.functions = {node.name: _function(traced, node) for node in self.graph.nodes}
        self.state = self.graph.state.name
        self.entered = {
            node.name: self.graph.carriers[node.name] or self.state for node in self.graph.blocks
        }
        """The input that each block adds to; for a block that has no such input, any value."""
        self.timestep = self.graph.timestep.name
        self.device = next(iter(traced.tensors.values())).device
        self.tables = [self._timestep_values(timestep) for timestep in sampler.timesteps]

    @torch.no_grad()
    def _timestep_values(self, timestep: float) -> Values:
        """Returns the values that depend on the timestep alone."""
        values = {self.timestep: torch.tensor(timestep, dtype=torch.float32, device=self.device)}
        self._compute(values, Dependence.TIMESTEP)
        return values

    def _compute(self, values: Values, *kinds: Dependence) -> None:
        for node in self.graph.nodes:
            if node.dependence in kinds:
                results = self.functions[node.name](*(values[name] for name in node.inputs))
                values.update(_named(node, results))

    def forward(
        self, gates: Tensor, inputs: Mapping[str, Tensor], rows: RowGates | None = None
    ) -> Tensor:
        """Returns the final latents f32[B, C, h, w], differentiable in the gates.

        Args:
            gates: f32[steps, blocks]; row 0 is computed whatever its gates are.
            inputs: The inputs of the traced graph but for the timestep.
            rows: Gates of whole rows; None leaves every row to its gates.
        """
        walk = self.begin(inputs)
        skip = self.skip_closed
        chosen = [None, *([choice(gate, skip) for gate in row] for row in gates[1:])]
        of_rows = rows.choices() if rows else [True] * len(chosen)
        while walk.index < len(self.sampler.rows):
            row = self.sampler.rows[walk.index]
            self.advance(walk, chosen[row], of_rows[row], rows.of_off[row] if rows else None)
        return walk.result()

    @torch.no_grad()
    def begin(self, inputs: Mapping[str, Tensor]) -> Walk:
        """Returns a walk that stands before the first evaluation."""
        values = dict(inputs)
        noise = values.pop(self.state)
        draws = {index: values.pop(draw_name(index)) for index in self.sampler.draws}
        self._compute(values, Dependence.PROMPT)
        return Walk(self.sampler, values, noise, draws)

    def advance(
        self,
        walk: Walk,
        gates: Sequence[Gate] | None,
        row_gate: Gate = True,
        off: Tensor | Prediction | None = None,
    ) -> None:
        """Runs one evaluation.

        Args:
            walk: The trajectory, which goes one evaluation further.
            gates: A gate for each block; None computes every block.
            row_gate: The gate of the whole row: the share of the denoiser's prediction; the rest
                is made of the latest predictions by `off`.
            off: How the row predicts when it is off, such as weights f32[K] of `Walk.latest`; None
                leaves that to the backups.
        """
        state, row = walk.next_input(), self.sampler.rows[walk.index]
        past, kinds = walk.past.before(row), len(self.predicted)
        if row_gate is False and off is not None:
            walk.past = walk.past.after(row, past)
            walk.add(state, predicted(off, past, kinds))
            return
        step = partial(self._step, walk.given, row)
        if self.checkpointing and walk.index and torch.is_grad_enabled():
            computed, walk.caches = checkpoint(step, state, gates, walk.caches, use_reentrant=False)
        else:
            computed, walk.caches = step(state, gates, walk.caches)
        output = computed[0]
        if row_gate is False:
            latest = past
        elif off is None or row_gate is True or not past:
            latest = (*computed, *past)
        else:
            output = torch.lerp(predicted(off, past, kinds), output, row_gate)
            latest = shifted(past, computed, row_gate)
        walk.past = walk.past.after(row, latest[: len(off)] if isinstance(off, Tensor) else latest)
        walk.add(state, output)

    def _step(
        self, given: Values, row: int, state: Tensor, gates: Sequence[Gate] | None, caches: Caches
    ) -> tuple[tuple[Tensor, ...], Caches]:
        """Returns the predictions that `predicted` names, and the caches from now on."""
        values = self.values_of_step(given, row, state)
        kept: Caches = {}
        for node in self.graph.nodes:
            if Dependence.STATE not in node.dependence:
                continue
            if node.kind == "glue":
                results = tuple(self.functions[node.name](*(values[name] for name in node.inputs)))
            else:
                gate = True if gates is None else gates[self.column[node.name]]
                results, kept[node.name] = self._block(node, gate, values, caches.get(node.name))
            values.update(_named(node, results))
        return tuple(values[name] for name in self.predicted), kept

    def values_of_step(self, given: Values, row: int, state: Tensor) -> Values:
        """Returns all values that a step starts from.

        These are the prompt's values, the row's tables, the state, and the values that depend on
        prompt and timestep.
        """
        values = {**given, **self.tables[row], self.state: state}
        with torch.no_grad():
            self._compute(values, Dependence.TIMESTEP | Dependence.PROMPT)
        return values

    def _block(
        self, node: Node, gate: Gate, values: Values, cached: tuple[Tensor, ...] | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns the block's outputs, and the tensors that it would reuse from now on."""
        backup, entered = self.backups[node.name], values[self.entered[node.name]]
        if gate is False:
            assert cached is not None, "a block that is off before it was ever on"
            return backup.reuse(cached, entered, combined), cached
        computed = tuple(self.functions[node.name](*(values[name] for name in node.inputs)))
        return gated(backup, gate, computed, entered, cached)


def _function(traced: Traced, node: Node) -> nn.Module:
    outputs = [value.name for value in node.outputs]
    return traced.module([node.name], node.inputs, outputs).requires_grad_(False)


def _named(node: Node, results: Sequence[Tensor]) -> Values:
    return dict(zip((value.name for value in node.outputs), results, strict=True))
