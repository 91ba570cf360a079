"""Options of every command that loads a model: which model, and LoRAs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

from dipgo.common.cli import Parser
from dipgo.common.errors import wrong_type
from dipgo.common.settings import fits, plain

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
    path, colon, scale = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        number = float(scale)
    except ValueError:
        return text, 1.0
    if not path or not math.isfinite(number):
        raise ValueError
    return path, number


lora.__name__ = "a file and a finite scale such as style.safetensors:0.8"


def check_loras(loras: object) -> tuple[Lora, ...]:
    """Returns LoRAs that a program has given.

    Raises:
        DipgoError: It is no list or tuple of files, each with its scale or without.
    """
    taken = plain(loras)
    if not fits(taken, tuple[Lora, ...]):
        raise wrong_type("loras", loras, "a list of .safetensors files, or of pairs (file, scale)")
    checked: tuple[Lora, ...] = taken
    return checked


MODEL = "model"
"""The heading of these options in a command's help."""

LORAS: dict[str, Any] = {
    "help": "fuse a LoRA into the weights; may be given several times",
    "group": MODEL,
    "flag": "--lora",
    "metavar": "PATH[:SCALE]",
    "action": "append",
    "type": lora,
    "kw_only": True,
}
"""The option of all settings that have LoRAs."""


def add_model(parser: Parser, *, required: bool = True, help: str = "") -> None:
    """Adds the option `--model` to a parser."""
    parser.group(MODEL).add_argument(
        "--model",
        required=required,
        metavar="M",
        help=help or "pipeline directory, Hub id, or arch:NAME",
    )
