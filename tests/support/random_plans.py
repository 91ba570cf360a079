"""Random plans, just before slots are allocated; the same kind and seed make the same plan."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np

from dipgo.compiler.passes import OPTIMISE, run_passes
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import BlockGraph, Dependence
from dipgo.ir.plan.nodes import (
    Call,
    Callee,
    Combine,
    Leaf,
    Operand,
    Read,
    Stack,
    Statement,
    Step,
    Table,
    TableRow,
)
from dipgo.ir.plan.plan import Plan
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import TensorType, Value
from tests.support.random_block_graphs import random_chain, random_unet

BEFORE_SLOTS = tuple(one for one in OPTIMISE if one.name != "allocate_slots")
SEQUENTIAL = tuple(one for one in BEFORE_SLOTS if one.name != "batch_calls")


def random_plan(kind: str, seed: int, *, batched: bool = True) -> Plan:
    """A plan of one of KINDS; those that are unrolled may leave calls unbatched."""
    draw = Random(f"{kind} {seed}")
    unrolled = {**UNROLLED, USELESS: _useless_calls}
    if kind in unrolled:
        return run_passes(unrolled[kind](draw), BEFORE_SLOTS if batched else SEQUENTIAL)
    return MADE[kind](draw)


def _unet(draw: Random) -> Plan:
    graph = random_unet(draw)
    backup = _backup(draw, graph, ("output",), ("output", "delta"), ("output", "delta", "identity"))
    return _compile(draw, graph, backup, _of_use(_any_gates(draw, graph), graph, backup))


def _chain(draw: Random) -> Plan:
    graph = random_chain(draw)
    backup = _backup(draw, graph, ("delta",), ("delta", "identity"))
    return _compile(draw, graph, backup, _of_use(_any_gates(draw, graph), graph, backup))


def _faster_diffusion(draw: Random) -> Plan:
    graph = random_unet(draw, conv_in="block")
    return _compile(draw, graph, _backup(draw, graph, ("output",)), _encoder_off(draw, graph))


def _useless_calls(draw: Random) -> Plan:
    graph = draw.choice((random_unet, random_chain))(draw)
    backup = _backup(draw, graph, ("output",), ("output", "delta", "identity"))
    return _compile(draw, graph, backup, _any_gates(draw, graph))


Gates = list[list[bool]]
"""A row a step, a gate a block; the first row is all on."""


def _compile(draw: Random, graph: BlockGraph, backup: tuple[str, ...], gates: Gates) -> Plan:
    """Unrolls the graph with random gates, backups and sampler."""
    sampler = _sampler(len(gates), order=draw.choice((1, 1, 2, 4)), ancestral=draw.random() < 0.3)
    blocks = tuple(node.name for node in graph.blocks)
    subnet = SubNet(len(gates), sampler.timesteps, blocks, np.array(gates), backup)
    return unroll(graph, subnet, sampler)


def _any_gates(draw: Random, graph: BlockGraph) -> Gates:
    """Each block is on with a probability of its own; all are at key steps, if there are any."""
    steps = draw.randint(2, 60)
    share = [draw.random() for _ in graph.blocks]
    period = draw.choice((2, 5, steps, steps))
    return [[step % period == 0 or draw.random() < one for one in share] for step in range(steps)]


def _of_use(gates: Gates, graph: BlockGraph, backup: tuple[str, ...]) -> Gates:
    """Turns off each block that would read nothing newer than what it read when it last was on."""
    for row in gates:
        newer = {
            value.name
            for node in graph.nodes
            if node.kind == "glue" and Dependence.STATE in node.dependence
            for value in node.outputs
        }
        for index, node in enumerate(graph.blocks):
            row[index] &= not newer.isdisjoint(node.inputs)
            if row[index] or (backup[index] != "output" and graph.carriers[node.name] in newer):
                newer.update(value.name for value in node.outputs)
    return gates


def _encoder_off(draw: Random, graph: BlockGraph) -> Gates:
    """As in Faster Diffusion: the decoder always on, the encoder at key steps alone.

    The first block of the decoder may belong to the encoder, the last may have gates at random.
    """
    gates = _any_gates(draw, graph)
    blocks = [node.name for node in graph.blocks]
    start = blocks.index("mid") + draw.choice((1, 1, 2))
    end = max(start + 1, len(blocks) - draw.choice((0, 0, 1)))
    period = draw.randint(2, 20)
    for step, row in enumerate(gates):
        row[:start] = [step % period == 0] * start
        row[start:end] = [True] * (end - start)
    gates[0] = [True] * len(blocks)
    return gates


def _backup(draw: Random, graph: BlockGraph, *choices: tuple[str, ...]) -> tuple[str, ...]:
    """A word for each block among those of one of the choices, where the block can have it."""
    words = draw.choice(choices)
    fits = (graph.carriers[node.name] is not None for node in graph.blocks)
    return tuple(draw.choice(words) if each else "output" for each in fits)


def _sampler(steps: int, order: int, ancestral: bool) -> Sampler:
    """A multistep method: each state takes in the last `order` predictions, and perhaps noise."""
    updates = [
        (
            Term(0.9, "input", index),
            *(Term(0.1, "output", one) for one in range(max(0, index - order + 1), index + 1)),
            *([Term(0.2, "draw", index + 1)] if ancestral else []),
        )
        for index in range(steps)
    ]
    timesteps = tuple(float(steps - index) for index in range(steps))
    inputs = ((Term(1.0, "noise"),), *updates[:-1])
    return Sampler("Handmade", steps, timesteps, tuple(range(steps)), inputs, updates[-1])


def _straight_line(draw: Random) -> Plan:
    """Sizes and lifetimes at random; the lanes of an output are last read in their order."""
    return _StraightLine(draw).plan()


def _lanes_in_any_order(draw: Random) -> Plan:
    """As `straight line`, but the lanes of an output are last read in any order."""
    return _StraightLine(draw, lanes_in_order=False).plan()


def _tiny(draw: Random) -> Plan:
    """As `lanes in any order`, of a few bytes each: alignment takes more than the values do."""
    return _StraightLine(draw, lanes_in_order=False, nbytes=(1, 300)).plan()


class _StraightLine:
    """A plan of one step, in which every statement is a call of its own callee."""

    def __init__(
        self,
        draw: Random,
        lanes_in_order: bool = True,
        nbytes: tuple[int, int] = (1 << 16, 1 << 24),
    ) -> None:
        self.draw = draw
        self.lanes_in_order = lanes_in_order
        self.low, self.high = nbytes
        self.count = draw.randint(5, 300)
        self.mean_lifetime = draw.uniform(1, 20)
        self.share_of_long, self.share_of_batches = draw.uniform(0, 0.3), draw.uniform(0, 0.2)
        self.sizes = [self._size() for _ in range(draw.choice((1, 3, 10, 1000)))]
        self.last_reads: dict[int, list[Value]] = {}
        self.callees: list[Callee] = []
        self.statements: list[Statement] = []

    def _size(self) -> int:
        return int(self.low * (self.high / self.low) ** self.draw.random())

    def plan(self) -> Plan:
        for position in range(self.count):
            self._add_call(position)
        _, last = self.callees[-1].outputs[0], self.statements[-1]
        assert isinstance(last, Call)
        self.statements.append(Combine(0, "result", ((1.0, last.results[0]),)))
        noise = Value("noise", TensorType("u8", (1,)))
        rows = tuple(range(MAX_LANES))
        return Plan(
            name="straight_line",
            num_inference_steps=1,
            blocks=(),
            steps=(Step(1.0, 0, ""),),
            inputs=(noise,),
            state=noise.name,
            tables=(Table("lane", TensorType("u8", (1,)), rows),),
            callees=tuple(self.callees),
            statements=tuple(self.statements),
            result="result",
        )

    def _add_call(self, position: int) -> None:
        batched = self.draw.random() < self.share_of_batches
        lanes = self.draw.randint(2, MAX_LANES) if batched else 1
        outputs = tuple(
            Value(
                f"v{position}:{index}",
                TensorType("u8", (self.draw.choice(self.sizes) // lanes + 1,)),
            )
            for index in range(self.draw.choice((1, 1, 1, 2, 3)))
        )
        dying = self.last_reads.pop(position, [])
        inputs = tuple(Value(f"in{index}", value.type) for index, value in enumerate(dying))
        operands: tuple[Operand, ...] = tuple(Read(value.name) for value in dying)
        if batched:
            inputs += (Value("lane", TensorType("u8", (1,))),)
            operands += (Stack(tuple[Leaf, ...](TableRow("lane", row) for row in range(lanes))),)
        results = []
        for value in outputs:
            ends = [self._last_read(position) for _ in range(lanes)]
            for lane, end in enumerate(sorted(ends) if self.lanes_in_order else ends):
                name = f"{value.name}.{lane}"
                results.append(name)
                self.last_reads.setdefault(end, []).append(Value(name, value.type))
        stacked = ("lane",) if batched else ()
        name = f"f{position}"
        self.callees.append(Callee(name, (), inputs, outputs, 1, 0, 1, stacked))
        self.statements.append(Call(0, name, operands, tuple(results)))

    def _last_read(self, position: int) -> int:
        if self.draw.random() < self.share_of_long:
            return self.draw.randint(position + 1, max(position + 1, self.count - 1))
        return position + 1 + int(self.draw.expovariate(1 / self.mean_lifetime))


MAX_LANES = 24
USELESS = "gates of no use"
"""Any gates: a block may run again on what it has read before; no bar is kept for these."""

UNROLLED: dict[str, Callable[[Random], Plan]] = {
    "unet": _unet,
    "chain": _chain,
    "faster diffusion": _faster_diffusion,
}
MADE: dict[str, Callable[[Random], Plan]] = {
    "straight line": _straight_line,
    "lanes in any order": _lanes_in_any_order,
    "tiny": _tiny,
}
KINDS = (*UNROLLED, *MADE, USELESS)
