"""The SuperNet: the traced denoiser over all steps, with a gate on every block.

It is the same traced graph that is exported, so what is searched is what is deployed. A gate
mixes what the block computes with what it would reuse, and the mixture is what later steps find
in the cache (DiP-GO, arXiv 2410.16942, section 3.2, and the released code).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dipgo.graph import BlockGraph, Dependence, Node
from dipgo.sampler import Sampler, Term
from dipgo.trace import Traced
from dipgo.unroll import carrier

Values: TypeAlias = dict[str, Tensor]
Caches: TypeAlias = dict[str, tuple[Tensor, ...]]
"""What each block would reuse: its outputs, or its delta."""

OnBlock: TypeAlias = Callable[[int, Node, tuple[Tensor, ...], tuple[Tensor, ...]], object]
"""Called after every block that is computed: evaluation, block, inputs, outputs."""


class SuperNet(nn.Module):
    """The denoiser over all evaluations of a sampler; gates f32[steps, blocks] say what is reused.

    `blocks` orders the gates' columns; `backup` has one word a block. Inputs are those of the
    traced graph but for the timestep.
    """

    def __init__(
        self,
        traced: Traced,
        sampler: Sampler,
        blocks: Sequence[str],
        backup: Sequence[str],
        *,
        checkpointing: bool = True,
    ) -> None:
        super().__init__()
        self.graph: BlockGraph = traced.graph
        self.sampler, self.checkpointing = sampler, checkpointing
        self.blocks = tuple(blocks)
        self.column = {name: column for column, name in enumerate(blocks)}
        self.backup = dict(zip(blocks, backup, strict=True))
        self.carriers = {node.name: carrier(self.graph, node) for node in self.graph.blocks}
        self.functions = {node.name: _function(traced, node) for node in self.graph.nodes}
        self.state = self.graph.input_of(Dependence.STATE).name
        self.timestep = self.graph.input_of(Dependence.TIMESTEP).name
        self.tables = [self._timestep_values(timestep) for timestep in sampler.timesteps]

    @torch.no_grad()
    def _timestep_values(self, timestep: float) -> Values:
        """What depends on the timestep alone."""
        kind = next(iter(self.functions.values()))
        device = next(iter(kind.parameters()), torch.empty(0)).device
        values = {self.timestep: torch.tensor(timestep, dtype=torch.float32, device=device)}
        self._compute(values, Dependence.TIMESTEP)
        return values

    def _compute(self, values: Values, *kinds: Dependence) -> None:
        for node in self.graph.nodes:
            if node.dependence in kinds:
                results = self.functions[node.name](*(values[name] for name in node.inputs))
                values.update(_named(node, results))

    def forward(self, gates: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The final latents f32[B, C, h, w]; differentiable in the gates.

        Row 0 is computed whatever its gates say. With `checkpointing`, activations are computed
        again on the way back, so that only states and caches are kept for every step.
        """
        given = dict(inputs)
        noise = given.pop(self.state)
        with torch.no_grad():
            self._compute(given, Dependence.PROMPT)
        history = History(self.sampler, noise)
        caches: Caches = {}
        for index, row in enumerate(self.sampler.rows):
            state = history.next_input(index)
            step = partial(self._step, given, row)
            if self.checkpointing and index and torch.is_grad_enabled():
                output, caches = checkpoint(step, state, gates[row], caches, use_reentrant=False)
            else:
                output, caches = step(state, gates[row] if index else None, caches)
            history.outputs.append(output)
        return history.result()

    def _step(
        self, given: Values, row: int, state: Tensor, gates: Tensor | None, caches: Caches
    ) -> tuple[Tensor, Caches]:
        """One evaluation; `gates` None computes everything, as row 0 does."""
        values = self.values_of_step(given, row, state)
        kept: Caches = {}
        for node in self.graph.nodes:
            if Dependence.STATE not in node.dependence:
                continue
            entered = tuple(values[name] for name in node.inputs)
            results = tuple(self.functions[node.name](*entered))
            if node.kind == "block":
                gate = None if gates is None else gates[self.column[node.name]]
                carried = self._carried(node, values)
                results, kept[node.name] = self._mix(
                    node.name, results, carried, gate, caches.get(node.name)
                )
            values.update(_named(node, results))
        return values[self.graph.output], kept

    def values_of_step(self, given: Values, row: int, state: Tensor) -> Values:
        """All that a step starts from: prompt, tables, state, and what prompt and timestep make."""
        values = {**given, **self.tables[row], self.state: state}
        with torch.no_grad():
            self._compute(values, Dependence.TIMESTEP | Dependence.PROMPT)
        return values

    def _carried(self, node: Node, values: Values) -> Tensor | None:
        name = self.carriers[node.name]
        return None if name is None else values[name]

    def _mix(
        self,
        block: str,
        computed: tuple[Tensor, ...],
        carried: Tensor | None,
        gate: Tensor | None,
        cached: tuple[Tensor, ...] | None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The block's outputs, and what it would reuse from now on."""
        backup = self.backup[block]
        if backup == "output":
            mixed = computed if gate is None or cached is None else _blend(gate, computed, cached)
            return mixed, mixed
        assert carried is not None, "a backup that needs an input to add to"
        if backup == "identity":
            return (computed if gate is None else _blend(gate, computed, (carried,))), ()
        deltas: tuple[Tensor, ...] = (computed[0] - carried,)
        if gate is not None and cached is not None:
            deltas = _blend(gate, deltas, cached)
            computed = (carried + deltas[0],)
        return computed, deltas


class History:
    """The states and predictions so far, from which a sampler makes the next input."""

    def __init__(self, sampler: Sampler, noise: Tensor) -> None:
        self.sampler, self.noise = sampler, noise
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def next_input(self, index: int) -> Tensor:
        """The denoiser's input at evaluation `index`."""
        self.inputs.append(self._sum(self.sampler.inputs[index]))
        return self.inputs[-1]

    def result(self) -> Tensor:
        """The final latents."""
        return self._sum(self.sampler.result)

    def _sum(self, terms: tuple[Term, ...]) -> Tensor:
        total = terms[0].coefficient * self._source(terms[0])
        for term in terms[1:]:
            total = total + term.coefficient * self._source(term)
        return total

    def _source(self, term: Term) -> Tensor:
        match term.kind:
            case "noise":
                return self.noise
            case "input":
                return self.inputs[term.index]
            case "output":
                return self.outputs[term.index]


def _function(traced: Traced, node: Node) -> nn.Module:
    outputs = [value.name for value in node.outputs]
    return traced.module([node.name], node.inputs, outputs).requires_grad_(False)


def _named(node: Node, results: Sequence[Tensor]) -> Values:
    return dict(zip((value.name for value in node.outputs), results, strict=True))


def _blend(gate: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.lerp(before, now, gate) for now, before in zip(new, old, strict=True))
