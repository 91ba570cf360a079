"""The arguments of `search` that are fields of its settings: names and defaults are read off."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

from dipgo.common.cli import Parser
from dipgo.search.settings import SearchSettings, published

HELP = {
    "parameters": "where the logits of the gates come from",
    "estimator": "gates in between, sharpened, or straight-through",
    "loss": "how the pruned result is compared with the dense one",
    "compare": "what is compared",
    "budget": "a budget that falls over the run, or the paper's penalty",
    "optimizer": "of the gates",
    "selection": "how scores become gates",
    "iterations": "of the optimiser; 0 begins with regular rows",
    "accumulate": "batches an iteration",
    "learning_rate": "of the optimiser",
    "weight_decay": "of the optimiser",
    "cosine": "let the learning rate fall to 0 as a cosine",
    "warm_up": "iterations over which the learning rate rises",
    "clip": "largest norm of the gradient; 0 for any",
    "alpha": "weight of the penalty",
    "gamma": "weigh the penalty by what dies with a block",
    "tau": "kept share below which there is no penalty",
    "hinge": "weight of what is kept above the budget",
    "anneal_share": "share of the run over which the budget falls",
    "sharpness_start": "of relaxed gates",
    "sharpness_end": "of relaxed gates",
    "pool": "batches of prompts that are used in turn",
    "same_noise": "the same noise for all prompts, as published",
    "exchanges": "tries of gates that trade places",
    "exchange_examples": "batches that a try is judged on",
    "reuse_terms": "predictions that a row which is off is made of; 0 repeats the latest",
    "reuse_halves": "with weights of their own for unconditional halves",
    "reuse_filter": "latent pixels of a filter's side for each of them; 0 for weights",
    "reuse_iterations": "iterations over which their weights are trained",
    "guidance_scale": "scale of the guidance",
    "seed": "of everything random",
}


def add_search_arguments(parser: Parser) -> None:
    """`--preset`, and an option for every field of `SearchSettings`."""
    parser.add_argument(
        "--preset",
        choices=("default", "published"),
        default="default",
        help="what the other options stand at: the measured best, or the paper's",
    )
    hints = get_type_hints(SearchSettings)
    for field in fields(SearchSettings):
        flag, default = f"--{field.name.replace('_', '-')}", field.default
        text = f"{HELP[field.name]} ({default})"
        if hints[field.name] is bool:
            parser.add_argument(flag, action="store_true", default=None, help=text)
            parser.add_argument(f"--no-{flag[2:]}", dest=field.name, action="store_false")
        elif choices := get_args(hints[field.name]):
            parser.add_argument(flag, choices=choices, help=text)
        else:
            metavar = "N" if hints[field.name] is int else "X"
            parser.add_argument(flag, type=hints[field.name], metavar=metavar, help=text)


def search_settings(options: Namespace) -> SearchSettings:
    """The preset with the options that were given. Raises DipgoError."""
    preset = published() if options.preset == "published" else SearchSettings()
    given: dict[str, Any] = {
        field.name: getattr(options, field.name)
        for field in fields(SearchSettings)
        if getattr(options, field.name) is not None
    }
    return replace(preset, **given)
