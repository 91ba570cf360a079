"""Random small denoisers, traced: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.graph import GAP_FUNCTION, Dependence
from dipgo.models.gap_functions import GapShape
from tests.support.random_blocks import (
    FEATURES,
    OPERATIONS,
    PROMPT_TOKENS,
    TOKENS,
    Block,
    Merge,
    Operation,
)


@dataclass(frozen=True)
class Wiring:
    """What each block reads of the values before it, and the head of all; and the glue."""

    sources: tuple[tuple[int, ...], ...]
    head: tuple[int, ...]
    glue: tuple[str, ...]
    """What is done to the first value that a block reads."""
    bare_start: bool
    """The latents are the first value; else a linear layer makes it of them."""
    bare_end: bool
    """The head's value is the prediction, often a block's output as it stands."""
    guided: bool
    joined: bool
    """The timestep's embedding has the prompt added, for all blocks."""


class Denoiser(nn.Module):
    """Blocks in the order of a random acyclic graph, with glue before, between and after them."""

    def __init__(self, wiring: Wiring, blocks: Sequence[Block], head: Merge) -> None:
        super().__init__()
        self.wiring, self.head = wiring, head
        self.blocks = nn.ModuleList(blocks)
        self.enter, self.time, self.between, self.leave = (
            nn.Linear(FEATURES, FEATURES) for _ in range(4)
        )

    def forward(
        self, latents: Tensor, timestep: Tensor, prompt: Tensor, guidance: Tensor
    ) -> Tensor:
        """f32[1, TOKENS, FEATURES], with guidance from a batch of two."""
        embedding = self._embed(timestep, prompt)
        state = torch.cat([latents, latents]) if self.wiring.guided else latents
        values = [state if self.wiring.bare_start else self.enter(state)]
        for block, sources, glue in zip(
            self.blocks, self.wiring.sources, self.wiring.glue, strict=True
        ):
            first, *rest = (values[index] for index in sources)
            if first.shape[-1] == FEATURES:
                first = self._glue(glue, first, timestep, embedding)
            values.extend(block(embedding, prompt, first, *rest))
        prediction: Tensor = self.head(*(values[index] for index in self.wiring.head))
        if not self.wiring.bare_end:
            prediction = self.leave(torch.tanh(prediction))
        if not self.wiring.guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def _embed(self, timestep: Tensor, prompt: Tensor) -> Tensor:
        frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
        embedding: Tensor = self.time(torch.cos(timestep * frequencies)).unsqueeze(0)
        return embedding + prompt[:, 0] if self.wiring.joined else embedding

    def _glue(self, kind: str, hidden: Tensor, timestep: Tensor, embedding: Tensor) -> Tensor:
        match kind:
            case "silu":
                return functional.silu(hidden)
            case "linear":
                return hidden + torch.tanh(self.between(hidden))
            case "timestep":
                return torch.add(hidden, timestep, alpha=1e-3)
            case "embedding":
                return hidden + embedding.unsqueeze(1)
        return hidden


class CutOnce(Traced):
    """Cuts each part of the program once: the oracle asks for the same ones after every pass."""

    @cached_property
    def _parts(self) -> dict[object, fx.GraphModule]:
        return {}

    def module(
        self,
        members: Sequence[str],
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        exact: bool = False,
    ) -> fx.GraphModule:
        key = (tuple(members), tuple(inputs), tuple(outputs), exact)
        if key not in self._parts:
            self._parts[key] = super().module(members, inputs, outputs, exact=exact)
        return self._parts[key]


@dataclass(frozen=True)
class RandomGraph:
    """A traced denoiser and inputs of its plans."""

    traced: Traced = field(repr=False)
    inputs: dict[str, Tensor] = field(repr=False)


class WithGapFunction(nn.Module):
    """A denoiser, and as its second output what a gap rule's function makes of the last inputs."""

    def __init__(self, denoiser: Denoiser, gap: GapShape) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.add_module(GAP_FUNCTION, gap.module())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *past, table = inputs[INPUTS:]
        return self.denoiser(*inputs[:INPUTS]), self.get_submodule(GAP_FUNCTION)(table, *past)


def random_graph(seed: int, gap: GapShape | None = None) -> RandomGraph:
    """A denoiser of 2 to 7 blocks with random edges, operations and weights.

    With `gap` the function of a gap rule is traced as well.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser = _denoiser(random.Random(seed)).eval().requires_grad_(False)
        inputs = {
            "latents": torch.randn(1, TOKENS, FEATURES),
            "prompt": torch.randn(1 + denoiser.wiring.guided, PROMPT_TOKENS, FEATURES),
            "guidance": torch.tensor(1.5),
        }
    past = gap.example_inputs(inputs["latents"]) if gap else {}
    traced = trace(
        WithGapFunction(denoiser, gap) if gap else denoiser,
        {"latents": inputs["latents"], "timestep": torch.tensor(1.0), **inputs, **past},
        {
            **dict.fromkeys(inputs, Dependence.PROMPT),
            **dict.fromkeys(past, Dependence.STATE),
            **OTHER_ROLES,
        },
        [f"blocks.{index}" for index in range(len(denoiser.blocks))],
        model_class=f"Random{seed}",
        config_sha256="",
        prefix="denoiser." if gap else "",
        past=tuple(past),
    )
    once = CutOnce(traced.graph, traced.program, traced.partition, traced.prefix)
    return RandomGraph(once, inputs)


INPUTS = 4
"""Of a denoiser: latents, timestep, prompt and guidance."""

OTHER_ROLES = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP}


def _denoiser(draw: random.Random) -> Denoiser:
    kinds = ((Dependence.TIMESTEP, 0.9), (Dependence.PROMPT, 0.8))
    known = {kind for kind, chance in kinds if draw.random() < chance}
    usable = [one for one in OPERATIONS if known.issuperset(one.needs)]
    glue = ["none", "none", "silu", "linear"]
    glue += ["timestep", "embedding"] if Dependence.TIMESTEP in known else []
    widths, blocks, sources = [FEATURES], [], []
    for _ in range(draw.randint(2, 7)):
        sources.append(_sources(draw, len(widths)))
        blocks.append(_block(draw, [widths[index] for index in sources[-1]], usable))
        widths.extend(blocks[-1].widths)
    head = _sources(draw, len(widths))
    with_prompt = Dependence.PROMPT in known
    wiring = Wiring(
        sources=tuple(sources),
        head=head,
        glue=tuple(draw.choice(glue) for _ in blocks),
        bare_start=draw.random() < 0.2,
        bare_end=draw.random() < 0.3,
        guided=with_prompt and draw.random() < 0.5,
        joined=with_prompt and draw.random() < 0.2,
    )
    merge = Merge([widths[index] for index in head], draw.choice(["cat", "sum"]))
    return Denoiser(wiring, blocks, merge)


def _block(draw: random.Random, widths: Sequence[int], usable: Sequence[type[Operation]]) -> Block:
    operations = [draw.choice(usable)() for _ in range(draw.randint(1, 3))]
    extra = draw.choice(["none", "none", "none", "wide", "halves", "first"])
    return Block(widths, operations, draw.choice(["cat", "sum", "product"]), extra)


def _sources(draw: random.Random, values: int) -> tuple[int, ...]:
    """Indices of 1 to 3 values; most often the first is the last value there is."""
    first = values - 1 if draw.random() < 0.7 else draw.randrange(values)
    others = [index for index in range(values) if index != first]
    return (first, *draw.sample(others, min(draw.randint(0, 2), len(others))))
