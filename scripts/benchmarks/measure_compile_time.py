"""Unrolling and all passes on long plans with random gates: seconds by number of steps.

    python -m scripts.benchmarks.measure_compile_time [--json FILE]

24 blocks in a U-Net's shape (each of the last 12 reads its mirror image among the first 12).
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from dipgo.compiler.passes import OPTIMISE
from dipgo.compiler.passes.live_ranges import lower_bound_nbytes
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import BlockGraph, Dependence, GraphInput, Node
from dipgo.ir.plan.verify import verify
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import TensorType, Value
from scripts.harness import add_json, new_report, run_script, script_parser, write_report

BLOCKS, STEPS = 24, (50, 100, 250, 500, 1000)
STATE, SCALAR = TensorType("f32", (1, 4, 64, 64)), TensorType("f32", ())
ALL = Dependence.STATE | Dependence.TIMESTEP


def main(arguments: list[str]) -> None:
    """Prints a line for each number of steps."""
    parser = script_parser(__file__, __doc__)
    add_json(parser)
    options = parser.parse_args(arguments)
    report = new_report(blocks=BLOCKS, steps={})
    for steps in STEPS:
        report["steps"][steps] = figures = measure(steps)
        print(steps, "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    write_report(options.json, report)


def measure(steps: int) -> dict[str, float]:
    """Seconds of unrolling and of each pass, with its verification."""
    gates = np.random.default_rng(0).random((steps, BLOCKS)) < 0.5
    gates[0] = True
    names = tuple(f"block{index}" for index in range(BLOCKS))
    sampler = _euler(steps)
    subnet = SubNet(steps, sampler.timesteps, names, gates, ("output",) * BLOCKS)
    started = perf_counter()
    plan = unroll(_unet(), subnet, sampler)
    seconds = {"unroll": perf_counter() - started}
    for one in OPTIMISE:
        began = perf_counter()
        plan = verify(one.run(plan))
        seconds[one.name] = perf_counter() - began
    seconds["total"] = perf_counter() - started
    return seconds | {"arena_over_bound": plan.arena_nbytes / lower_bound_nbytes(plan)}


def _unet() -> BlockGraph:
    hidden = [TensorType("f32", (2, 64, *[64 >> min(i, 23 - i) // 3] * 2)) for i in range(BLOCKS)]
    nodes = [_node("time", ("timestep",), TensorType("f32", (2, 64)), "glue")]
    nodes.append(_node("conv_in", ("latents",), hidden[0], "glue"))
    before = "conv_in"
    for index in range(BLOCKS):
        skip = (f"block{BLOCKS - 1 - index}",) if index >= BLOCKS // 2 else ()
        nodes.append(_node(f"block{index}", (before, "time", *skip), hidden[index], "block"))
        before = f"block{index}"
    nodes.append(_node("head", (before,), STATE, "glue"))
    inputs = (
        GraphInput(Value("latents", STATE), Dependence.STATE),
        GraphInput(Value("timestep", SCALAR), Dependence.TIMESTEP),
    )
    return BlockGraph("UNet", "", inputs, tuple(nodes), "head")


def _node(name: str, inputs: tuple[str, ...], output: TensorType, kind: Any) -> Node:
    dependence = Dependence.TIMESTEP if name == "time" else ALL
    return Node(name, kind, inputs, (Value(name, output),), dependence, 1, 0, 1)


def _euler(steps: int) -> Sampler:
    updates = [(Term(0.9, "input", i), Term(0.1, "output", i)) for i in range(steps)]
    timesteps = tuple(float(steps - index) for index in range(steps))
    inputs = ((Term(1.0, "noise"),), *updates[:-1])
    return Sampler("Handmade", steps, timesteps, tuple(range(steps)), inputs, updates[-1])


if __name__ == "__main__":
    run_script(main)
