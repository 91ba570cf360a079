"""The denoiser as a graph of blocks and glue with the edges between them; no torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from dipgo.ir.types import TensorType, Value


class Dependence(enum.Flag):
    """The inputs that a value depends on; empty is constant. docs/internals/design.md, stage 2."""

    CONSTANT = 0
    TIMESTEP = enum.auto()
    PROMPT = enum.auto()
    STATE = enum.auto()


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of the denoiser and the dependence of values computed from it."""

    value: Value
    role: Dependence


@dataclass(frozen=True, slots=True)
class Node:
    """A block or a piece of glue.

    A block with several outputs may have `parts`, in topological order: nodes that together are the
    block, each with the operations needed for the same outputs. `macs` counts convolutions and
    linear layers for the traced batch, as the papers do; `attention_macs` counts products of two
    activations (queries with keys, scores with values).
    """

    name: str
    kind: Literal["block", "glue"]
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    dependence: Dependence
    macs: int
    attention_macs: int
    parameters: int
    parts: tuple[Node, ...] = ()


PART = "~"
"""The separator of a block's name and the number of one of its parts: `down_blocks.0~1`."""

GAP_FUNCTION = "reuse_filter"
"""The node that computes a prediction from earlier predictions: the function of a gap rule."""

HALF = ".unconditional"
"""The suffix that marks unconditional halves among the function's inputs."""


@dataclass(frozen=True, slots=True)
class GapFunction:
    """The computation that replaces the prediction of a row whose gates are all off.

    It is not part of an evaluation. `node` reads `past`, predictions that were computed, the newest
    first, each followed by its unconditional half if the SubNet's gap rule reads halves; then
    `table`, a row of a table that the rule fills. It yields a prediction.
    """

    node: Node
    past: tuple[Value, ...]
    table: Value

    @property
    def halves(self) -> bool:
        """Whether unconditional halves are among the past predictions."""
        return any(value.name.endswith(HALF) for value in self.past)


@dataclass(frozen=True)
class BlockGraph:
    """A graph of nodes in topological order, whose `output` is the (guided) prediction's name.

    `unconditional` is the name of the half without prompt, if the denoiser is traced with guidance.
    `gap_function` is there for SubNets that have a gap rule with a function.
    """

    model_class: str
    config_sha256: str
    inputs: tuple[GraphInput, ...]
    nodes: tuple[Node, ...]
    output: str
    unconditional: str | None = None
    gap_function: GapFunction | None = None

    @cached_property
    def blocks(self) -> tuple[Node, ...]:
        """The nodes that a gate controls, in topological order."""
        return tuple(node for node in self.nodes if node.kind == "block")

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """The type of every value, inputs included."""
        types = {graph_input.value.name: graph_input.value.type for graph_input in self.inputs}
        for node in self.nodes:
            types.update((value.name, value.type) for value in node.outputs)
        if self.gap_function:
            inputs = (*self.gap_function.past, self.gap_function.table)
            types.update((value.name, value.type) for value in inputs)
        return types

    @cached_property
    def state(self) -> Value:
        """The sampler's state, among the inputs."""
        return self._input_of(Dependence.STATE)

    @cached_property
    def timestep(self) -> Value:
        """The timestep, among the inputs."""
        return self._input_of(Dependence.TIMESTEP)

    @cached_property
    def carriers(self) -> dict[str, str | None]:
        """By node with one output: the input that it adds to; None for a node that adds to none.

        It is the first input that depends on the state, if it has the type of the output.
        """
        made_by = {value.name: maker for maker in self.nodes for value in maker.outputs}
        from_state = {
            name for name, maker in made_by.items() if Dependence.STATE in maker.dependence
        }
        carriers: dict[str, str | None] = {}
        for node in self.nodes:
            first = next((name for name in node.inputs if name in from_state), None)
            types = [value.type for value in node.outputs]
            fits = first is not None and [self.types[first]] == types
            carriers[node.name] = first if fits else None
        return carriers

    def value(self, name: str) -> Value:
        """Returns the value called `name`, with its type."""
        return Value(name, self.types[name])

    def without_unconditional(self) -> BlockGraph:
        """Returns the graph for readers that need the guided prediction only."""
        name = self.unconditional
        if any(name in node.inputs for node in self.nodes):
            return replace(self, unconditional=None)
        nodes = tuple(
            replace(node, outputs=tuple(value for value in node.outputs if value.name != name))
            for node in self.nodes
        )
        return replace(self, nodes=nodes, unconditional=None)

    @property
    def macs(self) -> int:
        """The MACs of one evaluation in convolutions and linear layers."""
        return sum(node.macs for node in self.nodes)

    def _input_of(self, role: Dependence) -> Value:
        (value,) = (entry.value for entry in self.inputs if entry.role == role)
        return value
