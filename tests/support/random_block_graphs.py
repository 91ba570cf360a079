"""Random BlockGraphs in the shapes of denoisers, with tensors of realistic sizes."""

from __future__ import annotations

from random import Random
from typing import Literal, TypeAlias

from dipgo.ir.graph import BlockGraph, Dependence, GraphInput, Node
from dipgo.ir.types import TensorType, Value

Kind: TypeAlias = Literal["block", "glue"]
SCALAR = TensorType("f32", ())
STEP, PROMPT, ALL = (
    Dependence.TIMESTEP,
    Dependence.PROMPT,
    Dependence.STATE | Dependence.TIMESTEP | Dependence.PROMPT,
)


def random_unet(draw: Random, conv_in: Kind = "glue") -> BlockGraph:
    """conv_in, down0 …, mid, … up0: each up block reads the skip connections of its down block."""
    dtype, batch = draw.choice(("f16", "f32")), draw.choice((1, 1, 2, 4))
    size, channels = draw.choice((32, 64, 96, 128)), draw.choice((128, 192, 320))
    levels, skips = draw.randint(2, 4), draw.randint(1, 3)
    hidden = [
        TensorType(dtype, (2 * batch, channels * min(1 << i, 4), size >> i, size >> i))
        for i in range(levels)
    ]
    graph = _Graph(
        TensorType("f32", (batch, 4, size, size)), TensorType(dtype, (2 * batch, 77, 768))
    )
    entered = graph.add("conv_in", ("latents",), hidden[0], kind=conv_in)
    handed: list[tuple[str, ...]] = []
    for i in range(levels):
        below = hidden[min(i + 1, levels - 1)]
        made = graph.add(f"down{i}", (*entered, *graph.conditions(i)), *[hidden[i]] * skips, below)
        handed.append((*entered, *made[:-1]))
        entered = made[-1:]
    entered = graph.add("mid", (*entered, *graph.conditions(levels)), hidden[-1])
    for i in reversed(range(levels)):
        sources = (*entered, *handed[i], *graph.conditions(i))
        entered = graph.add(f"up{i}", sources, hidden[max(i - 1, 0)])
    return graph.finish("UNet", entered)


def random_chain(draw: Random) -> BlockGraph:
    """A transformer: every block has its modulation, and may read that of its mirror image."""
    dtype, batch = draw.choice(("f16", "f32")), draw.choice((1, 2, 4))
    depth, width = draw.choice(((12, 384), (12, 768), (24, 1024), (28, 1152)))
    side, with_skips = draw.choice((32, 32, 64)), draw.random() < 0.3
    hidden = TensorType(dtype, (2 * batch, side * side // 4, width))
    modulation = TensorType(dtype, (2 * batch, 6 * width))
    graph = _Graph(TensorType("f32", (batch, 4, side, side)), TensorType("i64", (2 * batch,)))
    entered = graph.add("patches", ("latents",), hidden, kind="glue")
    made = []
    for i in range(depth):
        (shift,) = graph.add(
            f"ada{i}", ("time", "prompt"), modulation, kind="glue", dependence=STEP | PROMPT
        )
        skip = made[depth - 1 - i] if with_skips and i > depth // 2 else ()
        entered = graph.add(f"block{i}", (*entered, *skip, shift), hidden)
        made.append(entered)
    return graph.finish("DiT", entered)


class _Graph:
    """A BlockGraph under construction."""

    def __init__(self, state: TensorType, prompt: TensorType) -> None:
        self.state = state
        self.inputs = (
            GraphInput(Value("latents", state), Dependence.STATE),
            GraphInput(Value("timestep", SCALAR), STEP),
            GraphInput(Value("prompt", prompt), PROMPT),
            GraphInput(Value("guidance", SCALAR), PROMPT),
        )
        self.nodes: list[Node] = []
        self.known: dict[int, tuple[str, ...]] = {}
        self.add("time", ("timestep",), TensorType("f32", (1, 256)), kind="glue", dependence=STEP)

    def add(
        self,
        name: str,
        inputs: tuple[str, ...],
        *outputs: TensorType,
        kind: Kind = "block",
        dependence: Dependence = ALL,
    ) -> tuple[str, ...]:
        """Names of the outputs of a new node."""
        names = [name] if len(outputs) == 1 else [f"{name}:{i}" for i in range(len(outputs))]
        values = tuple(Value(*pair) for pair in zip(names, outputs, strict=True))
        self.nodes.append(Node(name, kind, inputs, values, dependence, 1, 0, 1))
        return tuple(names)

    def conditions(self, level: int) -> tuple[str, ...]:
        """Time embedding and prompt, as the blocks of a level take them in."""
        if level not in self.known:
            time = TensorType("f32", (1, 320 << min(level, 2)))
            prompt = self.inputs[2].value.type
            keys = TensorType(prompt.dtype, (*prompt.shape[:2], 640 << min(level, 2)))
            self.known[level] = (
                *self.add(f"shift{level}", ("time",), time, kind="glue", dependence=STEP),
                *self.add(f"keys{level}", ("prompt",), keys, kind="glue", dependence=PROMPT),
            )
        return self.known[level]

    def finish(self, name: str, entered: tuple[str, ...]) -> BlockGraph:
        (output,) = self.add("head", (*entered, "guidance"), self.state, kind="glue")
        return BlockGraph(name, "", self.inputs, tuple(self.nodes), output)
