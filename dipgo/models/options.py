"""Options of every command that loads a model: which model, and LoRAs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

from dipgo.common.cli import Parser

Lora: TypeAlias = str | Path | tuple[str | Path, float]
"""A .safetensors file, and the factor of its weights, 1 by default."""


def lora(text: str) -> tuple[str, float]:
    """Parses an argument such as `style.safetensors` or `style.safetensors:0.8`.

    Args:
        text: A path, and after a colon the factor of the weights.

    Returns:
        The path and the factor, 1 by default.

    Raises:
        ValueError: The path is empty, or the factor is not finite.
    """
    path, _, scale = text.rpartition(":")
    try:
        number = float(scale)
    except ValueError:
        return text, 1.0
    if not path or not math.isfinite(number):
        raise ValueError
    return path, number


lora.__name__ = "a file and a finite scale such as style.safetensors:0.8"


def add_model(parser: Parser, *, required: bool = True, help: str = "") -> None:
    """Adds the option `--model` to a parser."""
    parser.group("model").add_argument(
        "--model",
        required=required,
        metavar="M",
        help=help or "pipeline directory, Hub id, or arch:NAME",
    )
