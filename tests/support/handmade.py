"""A BlockGraph and a sampler made by hand: small enough to read, with all that passes act on."""

from __future__ import annotations

import numpy as np

from dipgo.ir.graph import BlockGraph, Dependence, GraphInput, Node
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import TensorType, Value

STATE = TensorType("f32", (1, 4, 16, 16))
HIDDEN = TensorType("f32", (2, 8, 16, 16))
LOW = TensorType("f32", (2, 8, 8, 8))
EMBEDDING = TensorType("f32", (2, 32))
PROMPT = TensorType("f32", (2, 77, 32))
SCALAR = TensorType("f32", ())

_ALL = Dependence.STATE | Dependence.TIMESTEP | Dependence.PROMPT


def _node(name: str, inputs: str, outputs: dict[str, TensorType], *, glue: bool = False) -> Node:
    return Node(
        name=name,
        kind="glue" if glue else "block",
        inputs=tuple(inputs.split()),
        outputs=tuple(Value(output, kind) for output, kind in outputs.items()),
        dependence=Dependence.TIMESTEP if name == "time" else _ALL,
        macs=100,
        attention_macs=10,
        parameters=1000,
    )


UNET = BlockGraph(
    model_class="unet_tiny",
    config_sha256="",
    inputs=(
        GraphInput(Value("latents", STATE), Dependence.STATE),
        GraphInput(Value("timestep", SCALAR), Dependence.TIMESTEP),
        GraphInput(Value("prompt", PROMPT), Dependence.PROMPT),
        GraphInput(Value("guidance", SCALAR), Dependence.PROMPT),
    ),
    nodes=(
        _node("time", "timestep", {"time": EMBEDDING}, glue=True),
        _node("conv_in", "latents", {"conv_in": HIDDEN}, glue=True),
        _node("down0", "conv_in time prompt", {"down0:0": HIDDEN, "down0:1": LOW}),
        _node("mid", "down0:1 time", {"mid": LOW}),
        _node("up0", "mid down0:0 time prompt", {"up0": HIDDEN}),
        _node("head", "up0 guidance", {"head": STATE}, glue=True),
    ),
    output="head",
)
BLOCKS = ("down0", "mid", "up0")


def euler(steps: int) -> Sampler:
    """x' = 0.9 x + 0.1 e at every step."""
    updates = [(Term(0.9, "input", index), Term(0.1, "output", index)) for index in range(steps)]
    return Sampler(
        scheduler_class="Handmade",
        num_inference_steps=steps,
        timesteps=tuple(float(1000 - 250 * index + 1) for index in range(steps)),
        rows=tuple(range(steps)),
        inputs=((Term(1.0, "noise"),), *updates[:-1]),
        result=updates[-1],
    )


def subnet(*rows: str) -> SubNet:
    """Rows of gates for BLOCKS, such as "111", "000", "001"."""
    gates = np.array([[gate == "1" for gate in row] for row in rows])
    timesteps = euler(len(rows)).timesteps
    return SubNet(len(rows), timesteps, BLOCKS, gates, ("output",) * len(BLOCKS))
