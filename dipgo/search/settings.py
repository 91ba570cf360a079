"""What a search is made with: every choice and number, with the defaults and the paper's."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args, get_type_hints

from dipgo.common.errors import DipgoError

Parameters = Literal["free", "pruner", "pruner-identity", "pruner-shared"]

Estimator = Literal["relaxed", "straight-through"]

Loss = Literal["log-l2", "log-mse", "ssim", "l1", "l2", "ssim+l1"]

Compare = Literal["latents", "images"]

Budget = Literal["annealed", "penalty"]

Optimizer = Literal["adam", "sgd"]

Selection = Literal["fill", "bisection", "sweep"]

LEAST = {
    "iterations": 0,
    "accumulate": 1,
    "pool": 1,
    "exchanges": 0,
    "exchange_examples": 1,
    "reuse_terms": 0,
    "reuse_filter": 0,
    "reuse_iterations": 0,
    "warm_up": 0,
    "clip": 0,
    "seed": 0,
}

POSITIVE = ("learning_rate", "sharpness_start", "sharpness_end")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Defaults are what measurements prefer (docs/guide/search.md); `published()` is the paper's.

    `parameters`: free logits, or the pruner network, its encoder an identity as in the released
    code, or one head for all steps of a block. `estimator`: gates between 0 and 1, sharpened from
    `sharpness_start` to `sharpness_end`, or straight-through. `loss` compares `compare`. `budget`:
    a hinge of weight `hinge` on what is kept above a budget that falls linearly from 1 to the
    target over `anneal_share` of the run, or the paper's penalty: `alpha` times the mean gate,
    weighted by γ if `gamma`, while what is kept is above `tau`. `pool` batches of prompts are used
    in turn; with `same_noise` all start from the same noise, as published.

    Then `exchanges` tries of gates that trade places, judged on `exchange_examples` batches, and
    for rows that are wholly off weights of the latest `reuse_terms` predictions (`reuse_halves`:
    and of their unconditional halves). In the end filters of `reuse_filter` latent pixels a side,
    fitted to `pool` batches, take the place of weights; with 0 weights stay, and are trained for
    `reuse_iterations`. Without `iterations` the exchange starts from regular rows.
    """

    parameters: Parameters = "free"
    estimator: Estimator = "relaxed"
    loss: Loss = "log-l2"
    compare: Compare = "latents"
    budget: Budget = "annealed"
    optimizer: Optimizer = "adam"
    selection: Selection = "fill"
    iterations: int = 0
    accumulate: int = 1
    learning_rate: float = 0.15
    weight_decay: float = 0.0
    cosine: bool = False
    warm_up: int = 0
    clip: float = 0.0
    alpha: float = 1.0
    gamma: bool = True
    tau: float = 0.2
    hinge: float = 50.0
    anneal_share: float = 1.0
    sharpness_start: float = 1.0
    sharpness_end: float = 5.0
    pool: int = 48
    same_noise: bool = False
    exchanges: int = 250
    exchange_examples: int = 8
    reuse_terms: int = 4
    reuse_halves: bool = True
    reuse_filter: int = 3
    reuse_iterations: int = 120
    guidance_scale: float = 7.5
    seed: int = 0

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            choices, value = get_args(hints[field.name]), getattr(self, field.name)
            if choices and value not in choices:
                raise _wrong(field.name, value, " ".join(choices))
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"a number of at least {least}")
        if self.reuse_filter and not self.reuse_filter % 2:
            raise _wrong("reuse_filter", self.reuse_filter, "0, or an odd number of latent pixels")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise _wrong(name, getattr(self, name), "a number above 0")
        if not 0 < self.anneal_share <= 1:
            raise _wrong("anneal_share", self.anneal_share, "a share above 0, at most 1")


def _wrong(name: str, found: object, expected: str) -> DipgoError:
    return DipgoError(
        f"--{name.replace('_', '-')}",
        found=str(found),
        expected=expected,
        remedy="correct it",
    )


def published(settings: SearchSettings | None = None) -> SearchSettings:
    """DiP-GO as its authors run it (arXiv 2410.16942, section 4.1, and the released script).

    1000 prompts, one at a time: 500 steps of the optimiser, each over two of them.
    """
    return replace(
        settings or SearchSettings(),
        parameters="pruner",
        estimator="straight-through",
        loss="ssim",
        compare="images",
        budget="penalty",
        optimizer="sgd",
        selection="bisection",
        iterations=500,
        accumulate=2,
        learning_rate=0.1,
        weight_decay=1e-4,
        cosine=True,
        warm_up=10,
        clip=1.0,
        same_noise=True,
        exchanges=0,
        reuse_terms=0,
    )
