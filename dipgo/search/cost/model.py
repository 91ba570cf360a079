"""Computes the cost of a SubNet as the compiler would reduce it, without making a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.compiler.fit import can_have
from dipgo.ir.graph import GAP_FUNCTION, PART, BlockGraph, Dependence, Node
from dipgo.ir.plan.plan import Plan
from dipgo.ir.sampler import Sampler
from dipgo.search.cost.count_calls import Bools, CallFlow, Calls
from dipgo.search.cost.numbering import PlannedCalls


@dataclass(frozen=True, slots=True)
class GapCost:
    """The cost of rows that are wholly off, by a gap rule with a function.

    Attributes:
        terms: The number of the latest predictions that the function reads; fewer where fewer were
            computed.
        each: The cost, in a gap, of one prediction and its half.
    """

    terms: int
    each: float


@dataclass(frozen=True, eq=False)
class CostModel:
    """The cost of tables of gates, as a share of the dense plan's cost.

    Nodes that depend on the timestep alone cost nothing (they become tables); nodes that depend
    on the prompt alone count once, in the dense plan too. `dipgo.ir.plan.cost` counts by the same
    rules and gives the same share of MACs. Blocks are whole here: for a plan that calls some of
    them part by part (`dipgo.compiler.split_blocks`), `kept` is an upper bound of its share.

    Attributes:
        graph: The graph.
        sampler: The sampler.
        blocks: The gated blocks, in the SubNet's order.
        backup: A word for each block.
        weights: The cost of one call of each node, glue included.
        gaps: The cost of rows that are wholly off, which dense does not have.

    Raises:
        DipgoError: The parts do not fit together.
    """

    graph: BlockGraph
    sampler: Sampler
    blocks: tuple[str, ...]
    backup: tuple[str, ...]
    weights: Mapping[str, float]
    gaps: GapCost | None = None

    def __post_init__(self) -> None:
        _check_blocks(self.graph, self.blocks, self.backup)
        for node in self.graph.nodes:
            if node.name not in self.weights and node.name not in self._flow.folded:
                raise DipgoError(
                    f"cost, weight of {node.name}",
                    found="none",
                    expected="the cost of one call of every node",
                    remedy="take the weights from the same graph",
                )
        if not self._dense > 0:
            raise DipgoError(
                "cost, weights",
                found=f"a dense plan that costs {self._dense:g}",
                expected="one that costs something",
                remedy="give a block a weight",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a table of gates: steps and blocks."""
        return len(self.sampler.timesteps), len(self.blocks)

    def executed(self, gates: Bools) -> Bools:
        """Returns bool[evaluations, nodes], the calls that are really made; nodes as in the graph.

        A call is made if its gate is on, its inputs differ from those of every earlier call of
        its node, and the result depends on it.

        Args:
            gates: bool[steps, blocks] with row 0 all on.

        Raises:
            DipgoError: The gates have another shape or type, or row 0 is not all on.
        """
        self._check_gates(gates)
        return self._calls(gates).executed

    def kept(self, gates: Bools) -> float:
        """Returns the cost of the calls that are really made, as a share of the dense plan's cost.

        Raises:
            DipgoError: The gates have another shape or type, or row 0 is not all on.
        """
        self._check_gates(gates)
        calls = self._calls(gates)
        gaps = calls.of_gaps * self.gaps.each if self.gaps else 0.0
        executed = calls.executed.sum(axis=0, dtype=np.float64)
        return (float(executed @ self._weights) + gaps) / self._dense

    def used(self, gates: Bools) -> Bools:
        """Returns bool[steps, blocks], the gates that are on and on whose call the result depends.

        Raises:
            DipgoError: The gates have another shape or type, or row 0 is not all on.
        """
        self._check_gates(gates)
        names = [node.name for node in self.graph.nodes]
        read = self._calls(gates).used[:, [names.index(block) for block in self.blocks]]
        used = np.zeros(self.shape, dtype=np.bool_)
        np.logical_or.at(used, np.array(self.sampler.rows), read)
        return used & gates

    def share(self, block: str) -> float:
        """Returns the cost of one call of a block, as a share of the dense plan's cost."""
        return float(self.weights[block]) / self._dense

    @cached_property
    def fixed(self) -> float:
        """The share kept when only row 0 computes: the least that can be reached."""
        gates = np.zeros(self.shape, dtype=np.bool_)
        gates[0] = True
        return self.kept(gates)

    def _calls(self, gates: Bools) -> Calls:
        return self._flow.calls(gates, self._planned)

    @cached_property
    def _planned(self) -> tuple[PlannedCalls, ...]:
        return (PlannedCalls(self.shape[0], self.gaps.terms),) if self.gaps else ()

    @cached_property
    def _flow(self) -> CallFlow:
        return CallFlow(self.graph, self.sampler, self.blocks, self.backup)

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        return np.array([float(self.weights.get(node.name, 0.0)) for node in self.graph.nodes])

    @cached_property
    def _dense(self) -> float:
        """The cost of every node that the prediction needs, at every evaluation or once."""
        times = [self._times(node) for node in self.graph.nodes]
        return float(np.array(times, dtype=np.float64) @ self._weights)

    def _times(self, node: Node) -> int:
        if node.name in self._flow.folded or node.name not in self._needed:
            return 0
        return 1 if node.name in self._flow.once else len(self.sampler.rows)

    @cached_property
    def _needed(self) -> frozenset[str]:
        needed, nodes = {self.graph.output}, set()
        for node in reversed(self.graph.nodes):
            if not needed.isdisjoint(value.name for value in node.outputs):
                needed.update(node.inputs)
                nodes.add(node.name)
        return frozenset(nodes)

    def _check_gates(self, gates: Bools) -> None:
        if gates.shape != self.shape or gates.dtype != np.bool_ or not gates[0].all():
            rows, columns = self.shape
            raise DipgoError(
                "cost, gates",
                found=f"{gates.dtype}{list(gates.shape)}",
                expected=f"bool[{rows}, {columns}] with row 0 all on",
                remedy="give one row a step and one column a block",
            )


def macs_weights(graph: BlockGraph) -> dict[str, float]:
    """Returns the MACs of one call of each node, as papers count them (no attention products)."""
    return {node.name: float(node.macs) for node in graph.nodes}


def parameter_weights(graph: BlockGraph) -> dict[str, float]:
    """Returns the number of parameters that one call of each node touches."""
    return {node.name: float(node.parameters) for node in graph.nodes}


def latency_weights(
    graph: BlockGraph, plan: Plan, seconds_by_callee: Mapping[str, float]
) -> dict[str, float]:
    """Returns the seconds of one call of each node, from the times of an export's callees.

    A callee's time is divided equally among its lanes; its members share a lane's time in
    proportion to their MACs, attention's included, or equally if none has any. Nodes that depend
    on the timestep alone take no time: they are tables.

    Args:
        graph: The graph to price.
        plan: The plan of the export that was timed.
        seconds_by_callee: The seconds that all calls of a callee take in a run, such as
            `dipgo.engines.timing.Timing.segments`.

    Raises:
        DipgoError: The plan does not call a node, or a callee has no time.
    """
    macs = _macs_with_parts(graph)
    seconds: dict[str, float] = {}
    for callee in plan.callees:
        lanes = sum(call.width for call in plan.calls if call.callee == callee.name)
        if lanes == 0:
            continue
        members = callee.members or (callee.name,)
        if members == (GAP_FUNCTION,):  # no part of an evaluation
            continue
        if callee.name not in seconds_by_callee or not macs.keys() >= set(members):
            raise _not_of_this_export(f"{callee.name} ({' '.join(members)})")
        total = sum(macs[member] for member in members)
        for member in members:
            share = macs[member] / total if total else 1 / len(members)
            node = member.split(PART)[0]
            lane = share * seconds_by_callee[callee.name] / lanes
            seconds[node] = seconds.get(node, 0.0) + lane
    for called in graph.nodes:
        if called.name not in seconds and called.dependence != Dependence.TIMESTEP:
            raise _not_of_this_export(called.name)
    return {node.name: seconds.get(node.name, 0.0) for node in graph.nodes}


def _macs_with_parts(graph: BlockGraph) -> dict[str, int]:
    nodes = (part for node in graph.nodes for part in (node, *node.parts))
    return {node.name: node.macs + node.attention_macs for node in nodes}


def _not_of_this_export(name: str) -> DipgoError:
    return DipgoError(
        f"latency, {name}",
        found="no time in the measured export, or a callee of another graph",
        expected="a time for every block and piece of glue",
        remedy="export the same model with the same blocks, and time that",
    )


def _check_blocks(graph: BlockGraph, blocks: tuple[str, ...], backup: tuple[str, ...]) -> None:
    nodes = {node.name: node for node in graph.blocks}
    if set(blocks) != set(nodes) or len(blocks) != len(nodes) or len(backup) != len(blocks):
        raise DipgoError(
            "cost, blocks",
            found=f"{' '.join(blocks)} with {len(backup)} backups",
            expected=f"the blocks of the graph, and a backup for each: {' '.join(nodes)}",
            remedy="name every block once",
        )
    for block, word in zip(blocks, backup, strict=True):
        if not can_have(graph, nodes[block], word):
            raise DipgoError(
                f"cost, backup of {block}",
                found=word,
                expected="one output, of the type of the hidden state that goes in",
                remedy="use the backup `output` for this block",
            )
