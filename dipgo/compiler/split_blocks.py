"""Chooses the blocks to call part by part, so that unneeded outputs are not computed.

A part that some steps do not need becomes a finer segment, with its share of the weights and no
copy of any. It pays if the MACs that it saves outweigh the cost of its calls; else the block stays
whole, in a larger segment, and computes an output that nothing reads. Nothing is ever computed
twice either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dipgo.compiler.passes.eliminate_dead_calls import eliminate_dead_calls
from dipgo.compiler.passes.number_values import number_values
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import BlockGraph, Node
from dipgo.ir.plan.plan import Plan
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.subnet import SubNet

CALL_MACS = 5_000_000
"""The cost of a call besides its work, in MACs: some 50 µs at 100 GMAC/s."""

MAX_FINER_SEGMENTS = 16
"""The number of segments that splitting may add to those of whole blocks and glue."""


@dataclass(frozen=True, slots=True)
class _Split:
    """The MACs that calling a block part by part would save, and the segments that it would add."""

    block: str
    saved_macs: int
    segments: int


def choose_split_blocks(graph: BlockGraph, subnet: SubNet, sampler: Sampler) -> frozenset[str]:
    """Returns the blocks worth calling part by part, the most saving first within the bound."""
    divisible = [node for node in graph.blocks if node.parts]
    if not divisible:
        return frozenset()
    split = frozenset(node.name for node in divisible)
    plan = eliminate_dead_calls(number_values(unroll(graph, subnet, sampler, split)))
    steps = _steps_by_callee(plan)
    parts = {part.name for node in divisible for part in node.parts}
    others = {called for name, called in steps.items() if name not in parts}
    splits = [_weigh(node, steps, others) for node in divisible]
    splits.sort(key=lambda split: -split.saved_macs)
    return frozenset(split.block for split in _within_bound(splits))


def _steps_by_callee(plan: Plan) -> dict[str, frozenset[int]]:
    steps: dict[str, set[int]] = {callee.name: set() for callee in plan.callees}
    for call in plan.calls:
        steps[call.callee].add(call.step)
    return {name: frozenset(called) for name, called in steps.items()}


def _weigh(node: Node, steps: dict[str, frozenset[int]], others: set[frozenset[int]]) -> _Split:
    """Compares a block in parts with the whole block, which runs whenever any of its parts does.

    A part that is called exactly when a segment in `others` is called joins it, and adds no call.
    """
    called = frozenset[int]().union(*(steps[part.name] for part in node.parts))
    saved = sum(
        (part.macs + part.attention_macs) * len(called - steps[part.name]) for part in node.parts
    )
    finer = {steps[part.name] for part in node.parts} - others - {called, frozenset()}
    calls = sum(map(len, finer))
    return _Split(node.name, saved - CALL_MACS * calls, len(finer))


def _within_bound(splits: Sequence[_Split]) -> list[_Split]:
    chosen: list[_Split] = []
    for split in splits:
        segments = split.segments + sum(other.segments for other in chosen)
        if split.saved_macs > 0 and segments <= MAX_FINER_SEGMENTS:
            chosen.append(split)
    return chosen
