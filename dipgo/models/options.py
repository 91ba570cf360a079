"""The option of every command that loads a model: `--lora`."""

from __future__ import annotations

import math

from dipgo.common.cli import Parser


def lora(text: str) -> tuple[str, float]:
    """The type of an argument such as `style.safetensors` or `style.safetensors:0.8`."""
    path, _, scale = text.rpartition(":")
    try:
        number = float(scale)
    except ValueError:
        return text, 1.0
    if not path or not math.isfinite(number):
        raise ValueError
    return path, number


lora.__name__ = "a file and a finite scale such as style.safetensors:0.8"


def add_lora_argument(parser: Parser) -> None:
    """What is fused into the weights; shared with `search`."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        type=lora,
        metavar="PATH[:SCALE]",
        help="fuse a LoRA into the weights; may be given several times",
    )
