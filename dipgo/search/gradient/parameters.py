"""Gates that can be learned: modules that yield their logits, and the gates the SuperNet sees."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from dipgo.search.settings import Estimator, Parameters

WIDTH, NARROW = 512, 128


class Pruner(nn.Module):
    """The logits of keeping, f32[steps, blocks]: those of `keep` less those of `reuse`.

    The softmax of the paper's two outputs is the sigmoid of their difference. With `encoder` False
    it is the released code, whose encoder drops its own result. `shared_heads` has one head for all
    gates of a block.
    """

    def __init__(
        self, steps: int, blocks: int, *, encoder: bool = True, shared_heads: bool = False
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(steps, blocks, WIDTH))
        self.encoder = Encoder() if encoder else nn.Identity()
        self.heads = Heads(1 if shared_heads else steps, blocks)

    def forward(self) -> Tensor:
        """Returns f32[steps, blocks], 1 everywhere at first, so that every gate starts at keep."""
        reuse, keep = self.heads(self.encoder(self.queries)).unbind(-1)
        logits: Tensor = keep - reuse
        return logits


class Encoder(nn.Module):
    """A layer from f32[steps, blocks, 512] to the same; attention within a step, one head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, NARROW), nn.Linear(WIDTH, NARROW)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.attention_norm, self.output_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.feed_forward = nn.Sequential(
            nn.Linear(WIDTH, NARROW), nn.ReLU(), nn.Linear(NARROW, WIDTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Applies both parts with residuals, each followed by its norm."""
        attended = nn.functional.scaled_dot_product_attention(
            self.query(tokens), self.key(tokens), self.value(tokens)
        )
        tokens = self.attention_norm(tokens + attended)
        normed: Tensor = self.output_norm(tokens + self.feed_forward(tokens))
        return normed


class Heads(nn.Module):
    """Three linear layers for each query, 512→128→128→2; with one step, all steps share them."""

    def __init__(self, steps: int, blocks: int) -> None:
        super().__init__()
        sizes = ((WIDTH, NARROW), (NARROW, NARROW))
        self.weights = nn.ParameterList([_uniform(steps, blocks, a, b, fan_in=a) for a, b in sizes])
        self.biases = nn.ParameterList([_uniform(steps, blocks, b, fan_in=a) for a, b in sizes])
        self.last_weight = nn.Parameter(torch.zeros(steps, blocks, NARROW, 2))
        self.last_bias = nn.Parameter(torch.tensor([0.0, 1.0]).repeat(steps, blocks, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps f32[steps, blocks, 512] to f32[steps, blocks, 2]: reuse, keep."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            tokens = torch.relu(_linear(tokens, weight) + bias)
        return _linear(tokens, self.last_weight) + self.last_bias


def _linear(tokens: Tensor, weight: Tensor) -> Tensor:
    """Multiplies every query by its own weight."""
    return (tokens.unsqueeze(-2) @ weight).squeeze(-2)


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Returns parameters that start as those of `nn.Linear` do."""
    return nn.Parameter(torch.empty(shape).uniform_(-1 / sqrt(fan_in), 1 / sqrt(fan_in)))


FREE_START = 2.0
"""The logit that free gates start at: 0.88 of each block is its own."""


class FreeLogits(nn.Module):
    """The logits of keeping, f32[steps, blocks], themselves the parameters."""

    def __init__(self, steps: int, blocks: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((steps, blocks), FREE_START))

    def forward(self) -> Tensor:
        """Returns f32[steps, blocks]."""
        return self.logits


def make_parameters(parameterisation: Parameters, steps: int, blocks: int) -> nn.Module:
    """Returns a module without inputs whose output is the logits of keeping, f32[steps, blocks]."""
    match parameterisation:
        case "free":
            return FreeLogits(steps, blocks)
        case "pruner":
            return Pruner(steps, blocks)
        case "pruner-identity":
            return Pruner(steps, blocks, encoder=False)
        case "pruner-shared":
            return Pruner(steps, blocks, shared_heads=True)


def gates_of(logits: Tensor, estimator: Estimator, sharpness: float) -> Tensor:
    """Returns the gates that the SuperNet sees, f32[steps, blocks]; row 0 is kept.

    `relaxed` is the probability of keeping. `straight-through` is 0 or 1, with the gradient of the
    probability: hard − stop(soft) + soft.

    Args:
        logits: f32[steps, blocks], of keeping.
        estimator: The form of the gates.
        sharpness: The factor on the logits.

    Source:
        DiP-GO, section 3.3.
    """
    soft = torch.sigmoid(sharpness * logits)
    soft = torch.cat([torch.ones_like(soft[:1]), soft[1:]])
    if estimator == "relaxed":
        return soft
    return (soft > 0.5).to(soft.dtype) - soft.detach() + soft
