"""The settings of a search: every choice and number, with the defaults and the paper's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dipgo.common.errors import wrong
from dipgo.common.settings import check_settings, option
from dipgo.ir.fitted import LEAST_SCALE, MOST_SCALE, Scales

SCALES = f"a finite scale of at least {LEAST_SCALE:g}, or a range of scales such as 3..9"
"""The values of `guidance_scale`, in words."""


def guidance_scales(text: str) -> float | Scales:
    """Reads an argument such as `5` or `3..9`.

    Raises:
        ValueError: It is neither a number nor two.
    """
    lowest, dots, highest = text.partition("..")
    return (float(lowest), float(highest)) if dots else float(text)


guidance_scales.__name__ = SCALES

Parameters = Literal["free", "pruner", "pruner-identity", "pruner-shared"]

Estimator = Literal["relaxed", "straight-through"]

Loss = Literal["log-l2", "log-mse", "ssim", "l1", "l2", "ssim+l1"]

Compare = Literal["latents", "images"]

Budget = Literal["annealed", "penalty"]

Optimizer = Literal["adam", "sgd"]

Selection = Literal["fill", "bisection", "sweep"]

GRADIENT, EXCHANGE, REUSE, EXAMPLES = "gradient search", "exchange", "reuse", "prompts and noise"
"""Headings of the command's help."""

GRADIENTS = {"iterations": True}

PENALTY, ANNEALED = {**GRADIENTS, "budget": "penalty"}, {**GRADIENTS, "budget": "annealed"}

RELAXED = {**GRADIENTS, "estimator": "relaxed"}

REUSES = {"reuse_terms": True}
"""What an option needs to have an effect, as `option` takes it."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """The choices and numbers of a search.

    The defaults are what measurements prefer (docs/guide/search.md); `published()` returns the
    paper's.

    The gradient search: `parameters` are free logits, or come from the pruner network, with an
    identity for its encoder as in the released code, or with one head for all steps of a block.
    `estimator` is relaxed (gates between 0 and 1, sharpened from `sharpness_start` to
    `sharpness_end`) or straight-through. `loss` compares what `compare` names. `budget` is either
    annealed, a hinge of weight `hinge` on the share kept above a budget that falls linearly from
    1 to the target over `anneal_share` of the run; or the paper's penalty, `alpha` times the mean
    gate, weighted by γ if `gamma`, while the share kept is above `tau`. `pool` batches of prompts
    are used in turn; with `same_noise` all start from the same noise, as published. With
    `iterations` 0 there is no gradient search, and the exchange starts from regular rows. If
    `guidance_scale` is a range, each batch has a scale of it.

    The exchange: `exchanges` tries of gates that trade places, judged on `exchange_examples`
    batches.

    Reuse: rows that are wholly off have weights of the latest `reuse_terms` predictions, and with
    `reuse_halves` of their unconditional halves. In the end, filters of `reuse_filter` latent
    pixels a side, fitted to `pool` batches, replace the weights; if it is 0 the weights stay, and
    are trained for `reuse_iterations`.

    Raises:
        DipgoError: A value has a wrong type or is out of bounds.
    """

    parameters: Parameters = option(
        "free", help="where the logits of the gates come from", group=GRADIENT, needs=GRADIENTS
    )
    estimator: Estimator = option(
        "relaxed",
        help="gates in between, sharpened, or straight-through",
        group=GRADIENT,
        needs=GRADIENTS,
    )
    loss: Loss = option(
        "log-l2", help="how the pruned result is compared with the dense one", group=GRADIENT
    )
    compare: Compare = option("latents", help="what is compared", group=GRADIENT, needs=GRADIENTS)
    budget: Budget = option(
        "annealed",
        help="a budget that falls over the run, or the paper's penalty",
        group=GRADIENT,
        needs=GRADIENTS,
    )
    optimizer: Optimizer = option("adam", help="of the gates", group=GRADIENT, needs=GRADIENTS)
    selection: Selection = option(
        "fill", help="how scores become gates", group=GRADIENT, needs=GRADIENTS
    )
    iterations: int = option(
        0, help="of the optimiser; 0 begins with regular rows", group=GRADIENT, least=0
    )
    accumulate: int = option(
        1, help="batches an iteration", group=GRADIENT, least=1, needs=GRADIENTS
    )
    learning_rate: float = option(
        0.15, help="of the optimiser", group=GRADIENT, above=0, needs=GRADIENTS
    )
    weight_decay: float = option(0.0, help="of the optimiser", group=GRADIENT, needs=GRADIENTS)
    cosine: bool = option(
        False, help="let the learning rate fall to 0 as a cosine", group=GRADIENT, needs=GRADIENTS
    )
    warm_up: int = option(
        0,
        help="iterations over which the learning rate rises",
        group=GRADIENT,
        least=0,
        needs=GRADIENTS,
    )
    clip: float = option(
        0.0,
        help="largest norm of the gradient; 0 for any",
        group=GRADIENT,
        least=0,
        needs=GRADIENTS,
    )
    alpha: float = option(1.0, help="weight of the penalty", group=GRADIENT, needs=PENALTY)
    gamma: bool = option(
        True, help="weigh the penalty by what dies with a block", group=GRADIENT, needs=PENALTY
    )
    tau: float = option(
        0.2, help="kept share below which there is no penalty", group=GRADIENT, needs=PENALTY
    )
    hinge: float = option(
        50.0, help="weight of what is kept above the budget", group=GRADIENT, needs=ANNEALED
    )
    anneal_share: float = option(
        1.0,
        help="share of the run over which the budget falls",
        group=GRADIENT,
        above=0,
        most=1,
        expected="a share above 0, at most 1",
        needs=ANNEALED,
    )
    sharpness_start: float = option(
        1.0, help="of relaxed gates", group=GRADIENT, above=0, needs=RELAXED
    )
    sharpness_end: float = option(
        5.0, help="of relaxed gates", group=GRADIENT, above=0, needs=RELAXED
    )
    pool: int = option(48, help="batches of prompts that are used in turn", group=EXAMPLES, least=1)
    same_noise: bool = option(
        False, help="the same noise for all prompts, as published", group=EXAMPLES
    )
    exchanges: int = option(250, help="tries of gates that trade places", group=EXCHANGE, least=0)
    exchange_examples: int = option(
        8,
        help="batches that a try is judged on",
        group=EXCHANGE,
        least=1,
        needs={"exchanges": True},
    )
    reuse_terms: int = option(
        4,
        help="predictions that a row which is off is made of; 0 repeats the latest",
        group=REUSE,
        least=0,
    )
    reuse_halves: bool = option(
        True, help="with own weights for unconditional halves", group=REUSE, needs=REUSES
    )
    reuse_filter: int = option(
        3,
        help="latent pixels of a filter's side for each of them; 0 for weights",
        group=REUSE,
        least=0,
        needs=REUSES,
    )
    reuse_iterations: int = option(
        120,
        help="iterations over which their weights are trained",
        group=REUSE,
        least=0,
        needs={**REUSES, "reuse_filter": False},
    )
    guidance_scale: float | Scales | None = option(
        None,
        help="scale of the guidance, or a range such as 3..9 (that of diffusers' pipeline)",
        group=EXAMPLES,
        metavar="S[..S]",
        type=guidance_scales,
    )
    negative_prompt: str | None = option(
        None, help="negative prompt of all pictures (none)", group=EXAMPLES, metavar="TEXT"
    )
    held_out: int = option(
        1,
        help="batches on which errors are measured in the end, at several scales; 0 for none",
        group=EXAMPLES,
        least=0,
    )
    seed: int = option(0, help="of everything random", group=EXAMPLES, least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.reuse_filter and not self.reuse_filter % 2:
            raise wrong("reuse_filter", self.reuse_filter, "0, or an odd number of latent pixels")
        if self.guidance_scale is not None:
            _check_scales(self.guidance_scale)


def _check_scales(scales: float | Scales) -> None:
    """Checks a guidance scale, or a range.

    Raises:
        DipgoError: It is neither.
    """
    lowest, highest = scales if isinstance(scales, tuple) else (scales, scales)
    if not LEAST_SCALE <= lowest <= highest <= MOST_SCALE:
        found = f"{lowest:g}..{highest:g}" if isinstance(scales, tuple) else f"{scales:g}"
        raise wrong("guidance_scale", found, SCALES)


def published(settings: SearchSettings | None = None) -> SearchSettings:
    """Returns `settings` changed to DiP-GO as its authors run it.

    They use 1000 prompts, one at a time: 500 steps of the optimiser, each over two prompts.

    Source:
        DiP-GO (arXiv 2410.16942), section 4.1, and the released script.
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
