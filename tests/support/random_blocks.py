"""Blocks of random operations, of which random denoisers are made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dipgo.ir.graph import Dependence

FEATURES, TOKENS, PROMPT_TOKENS = 4, 4, 3
"""Latents have as many channels as hidden states have features: a block may stand at either end."""


class Operation(nn.Module):
    """From f32[B, TOKENS, FEATURES] to the same; the timestep's embedding is f32[1 or B, FEATURES].

    `layer` has the weights, of which `outputs` says how many features they make.
    """

    outputs = FEATURES
    needs: frozenset[Dependence] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, self.outputs)

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        return functional.silu(self.layer(hidden))


class Normalise(Operation):
    """Layer norm, then a linear layer."""

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        return self.layer(functional.layer_norm(hidden, (FEATURES,)))


class Gate(Operation):
    """A product with itself."""

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        return hidden * torch.sigmoid(self.layer(hidden))


class Convolve(Operation):
    """A convolution over the tokens as a picture of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        picture = self.layer(hidden).transpose(1, 2).unflatten(2, (2, 2))
        return hidden + self.convolution(picture).flatten(2).transpose(1, 2)


class AttendToItself(Operation):
    """Attention with one head; queries, keys and values come from one linear layer."""

    outputs = 3 * FEATURES

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        query, key, value = (one.unsqueeze(1) for one in self.layer(hidden).chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(query, key, value)
        return hidden + attended.squeeze(1)


class AttendToPrompt(Operation):
    """Attention whose keys and values depend on the prompt alone."""

    needs = frozenset({Dependence.PROMPT})
    outputs = 2 * FEATURES

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        key, value = self.layer(prompt).chunk(2, dim=-1)
        return hidden + functional.scaled_dot_product_attention(hidden, key, value)


class AddTimestep(Operation):
    """A projection of the timestep's embedding, within the block, added to every token."""

    needs = frozenset({Dependence.TIMESTEP})

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        return hidden + self.layer(functional.silu(embedding)).unsqueeze(1)


class Modulate(Operation):
    """Scale and shift by prompt and timestep, as adaLN does."""

    needs = frozenset({Dependence.PROMPT, Dependence.TIMESTEP})
    outputs = 2 * FEATURES

    def forward(self, hidden: Tensor, embedding: Tensor, prompt: Tensor) -> Tensor:
        joined = self.layer(functional.silu(embedding + prompt.mean(dim=1))).unsqueeze(1)
        scale, shift = joined.chunk(2, dim=-1)
        return hidden * (1 + scale) + shift


OPERATIONS: tuple[type[Operation], ...] = (
    Operation,
    Normalise,
    Gate,
    Convolve,
    AttendToItself,
    AttendToPrompt,
    AddTimestep,
    AddTimestep,
    Modulate,
)


class Merge(nn.Module):
    """Several values of any widths become one of FEATURES: by cat, by a sum or by a product."""

    def __init__(self, widths: Sequence[int], kind: str) -> None:
        super().__init__()
        self.kind = kind
        sizes = [sum(widths)] if kind == "cat" else list(widths)
        self.project = nn.ModuleList(nn.Linear(size, FEATURES) for size in sizes)

    def forward(self, *values: Tensor) -> Tensor:
        if self.kind == "cat":
            joined: Tensor = self.project[0](torch.cat(values, dim=-1))
            return joined
        first, *rest = (
            # What has the right width may be passed on, for a block to add to.
            value if value.shape[-1] == FEATURES else layer(value)
            for value, layer in zip(values, self.project, strict=True)
        )
        for one in rest:
            first = first + one if self.kind == "sum" else first * torch.tanh(one)
        return first


class Block(nn.Module):
    """Merges its inputs, runs a few operations, and yields 1 to 3 outputs."""

    def __init__(
        self, widths: Sequence[int], operations: Sequence[Operation], kind: str, extra: str
    ) -> None:
        super().__init__()
        self.merge = Merge(widths, kind)
        self.operations = nn.ModuleList(operations)
        self.extra = extra
        self.out = nn.Linear(FEATURES, 2 * FEATURES)
        self.widths = {
            "none": [FEATURES],
            "wide": [FEATURES, 2 * FEATURES],
            "halves": [FEATURES, FEATURES // 2, FEATURES // 2],
            "first": [widths[0], FEATURES],
        }[extra]

    def forward(self, embedding: Tensor, prompt: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        hidden = self.merge(*inputs)
        for operation in self.operations:
            hidden = operation(hidden, embedding, prompt)
        match self.extra:
            case "none":
                return (hidden,)
            case "wide":
                return hidden, self.out(hidden)
            case "halves":
                return hidden, *hidden.chunk(2, dim=-1)
            case _:  # an input that is passed on is no output of the block
                return inputs[0], hidden
