"""Small denoisers of drawn operators, whose decoder could run as lanes of one call."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.graph import Dependence

TOKENS, FEATURES = 4, 6

Drawn = Callable[[Tensor, Tensor], Tensor]
"""Of f32[1, TOKENS, FEATURES] and the timestep's embedding, f32[1, 1, FEATURES], to the first."""

WITH_RULES: dict[str, Drawn] = {
    "cast of truth": lambda x, e: x * (x > e).float(),
    "cast to half": lambda x, e: (x + e).half().float(),
    "cast to whole": lambda x, e: x + (4 * e).long().to(x.dtype),
    "type as": lambda x, e: x + (e > 0).type_as(x),
    "to other": lambda x, e: x + (x > e).to(e),
    "to device": lambda x, e: (x * e).to("cpu", torch.float64).to(torch.float32),
    "normalised": lambda x, e: functional.normalize(x + e, dim=-1),
    "norm": lambda x, e: (x + e) / (1 + x.norm(dim=(1, 2), keepdim=True)),
    "norm of all": lambda x, e: x / (1 + torch.linalg.vector_norm(x + e)),
    "where scalar": lambda x, e: torch.where(x > e, x, 0.5),
    "where scalars": lambda x, e: x * torch.where(x > e, 1.0, -1.0),
    "where truth": lambda x, e: x * torch.where(x > e, x > 1, e < 0).float(),
    "where one truth": lambda x, e: x + torch.where(x > e, e > 0, True).float(),
    "masked fill": lambda x, e: x.masked_fill(x > e, -0.5),
    "masked truth": lambda x, e: x + (x > 0).masked_fill(x > e, False).float(),
    "sum of truths": lambda x, e: x * ((x > e) + (e > 0)).float(),
    "logic": lambda x, e: x * (((x > e) & (x < 1)) | ~(e > 0)).float(),
    "standard deviation": lambda x, e: x - (x + e).std(dim=-1, keepdim=True),
    "variance": lambda x, e: x / (1 + (x * e).var(dim=(1, 2), keepdim=True, correction=0)),
    "mean of all": lambda x, e: x - (x + e).mean(),
    "largest": lambda x, e: x - (x + e).max(dim=1, keepdim=True)[0],
    "smallest": lambda x, e: x - (x + e).amin(dim=(1, 2), keepdim=True),
    "rolled": lambda x, e: x.roll(1, 1) * e,
    "clamped": lambda x, e: (x + e).clamp_min(-0.5).square().log1p(),
    "by its product": lambda x, e: torch.bmm(x, (x * e).mT) @ x,
    "selected": lambda x, e: (x + e).index_select(2, torch.tensor([5, 4, 3, 2, 1, 0])),
    "norm of the embedding": lambda x, e: x + functional.normalize(e, dim=-1),
}

WITHOUT_RULES: dict[str, Drawn] = {
    "hyperbolic": lambda x, e: torch.tanh(torch.sinh(x * e)),
    "tangent": lambda x, e: torch.tan(0.1 * x) + e,
    "top": lambda x, e: x - (x + e).topk(2, dim=-1)[0].sum(-1, keepdim=True),
    "gathered": lambda x, e: (x * e).gather(1, torch.tensor([[[1], [0], [3], [2]]]).expand_as(x)),
    "reflected": lambda x, e: functional.pad(x * e, (1, 0), mode="reflect")[..., :-1],
    "logarithm": lambda x, e: torch.log10(1 + (x + e).abs()),
    "one constant for all": lambda x, e: x * torch.tensor([[0.5], [2.0]]).repeat(2, 1).sinh(),
    "angle of the embedding": lambda x, e: x * torch.sinh(e),
}

OPERATORS = {**WITH_RULES, **WITHOUT_RULES}


class DrawnDenoiser(nn.Module):
    """An encoder of the state, and a decoder that reads the encoder and the timestep alone."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.encoder, self.decoder, self.time = (nn.Linear(FEATURES, FEATURES) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in names)

    def forward(self, latents: Tensor, timestep: Tensor, prompt: Tensor) -> Tensor:
        frequencies = torch.linspace(0.2, 1.2, FEATURES)
        embedding = self.time(torch.cos(timestep * frequencies)).reshape(1, 1, FEATURES)
        hidden = torch.tanh(self.encoder(latents))
        for name, layer in zip(self.names, self.layers, strict=True):
            hidden = layer(OPERATORS[name](hidden, embedding + prompt))
        return self.decoder(hidden)


def draw_operators(seed: int) -> tuple[DrawnDenoiser, Traced]:
    """A denoiser of one to three operators; every operator is first in one of the first seeds."""
    draw, names = random.Random(seed), list(OPERATORS)
    chosen = [names[seed % len(names)], *draw.choices(names, k=draw.randint(0, 2))]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser = DrawnDenoiser(chosen).eval().requires_grad_(False)
    inputs = {
        "latents": (torch.zeros(1, TOKENS, FEATURES), Dependence.STATE),
        "timestep": (torch.tensor(1.0), Dependence.TIMESTEP),
        "prompt": (torch.zeros(1, 1, FEATURES), Dependence.PROMPT),
    }
    traced = trace(
        denoiser,
        {name: example for name, (example, _) in inputs.items()},
        {name: role for name, (_, role) in inputs.items()},
        ["encoder", "decoder"],
        model_class=f"Drawn{seed}",
        config_sha256="",
        prefix="",
    )
    return denoiser, traced
