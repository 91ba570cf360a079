"""Reads the gate pickles that the DiP-GO authors publish (github.com/haoweiz23/dip-go).

Such a pickle is a list with one dictionary a step. A key is ("down" | "mid" | "up", name, index,
layer); a value is the pair [reuse score, keep score]. The index of an up block counts from the
last block. Only dictionaries, lists, tuples, texts, numbers and tensors are ever built.
"""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.safe_pickle import load_data
from dipgo.common.typed_json import read_file

Key = tuple[str, str, int, int | None]

PARTS = ("down", "mid", "up")

REMEDY = "import a gate pickle of the form published at github.com/haoweiz23/dip-go"


@dataclass(frozen=True, slots=True)
class GatePickle:
    """The contents of a gate pickle, row by row and block by block.

    `gates` is bool[steps, blocks], 1 where the keep score is at least the reuse score; `scores`
    is f64[steps, blocks], the keep scores. Blocks are in the order in which they run.
    """

    blocks: tuple[str, ...]
    gates: NDArray[np.bool_]
    scores: NDArray[np.float64]


def read_gate_pickle(path: Path) -> GatePickle:
    """Reads a published gate pickle as data; nothing in it is executed.

    Raises:
        DipgoError: The file is missing or cut short, holds anything but plain data and tensors
            (the refused global is named), or is of another structure.
    """
    data = load_data(read_file(path, expected="a gate pickle"), name=path.name)
    keys = _read_keys(data, path.name)
    rows = [[_read_pair(step, key, path.name) for key in keys] for step in data]
    pairs = np.array(rows).reshape(len(rows), len(keys), 2)
    keep = pairs[:, :, 1]
    return GatePickle(_name_blocks(keys), keep >= pairs[:, :, 0], keep)


def _read_keys(data: object, name: str) -> list[Key]:
    """Returns the keys of every step, from the first block of the denoiser to the last."""
    if not isinstance(data, list) or not data or not all(isinstance(s, dict) for s in data):
        raise DipgoError(
            name,
            found=f"a {type(data).__name__}" if data else "nothing in it",
            expected="a list of dictionaries, one a step",
            remedy=REMEDY,
        )
    for index, step in enumerate(data):
        if step.keys() != data[0].keys():
            raise DipgoError(
                f"{name}, step {index}",
                found="other blocks than at step 0",
                expected="the same blocks at every step",
                remedy=REMEDY,
            )
    return sorted((_read_key(key, name) for key in data[0]), key=_place)


def _read_key(key: object, name: str) -> Key:
    match key:
        case (str(part), str(word), int(index), int() | None as layer) if part in PARTS:
            return part, word, index, layer
    raise DipgoError(
        f"{name}, step 0",
        found=f"the key {reprlib.repr(key)}",
        expected="(down, mid or up; a name; an index; a layer)",
        remedy=REMEDY,
    )


def _read_pair(step: dict[Any, Any], key: Key, name: str) -> NDArray[np.float64]:
    try:
        pair = np.asarray(step[key], dtype=np.float64).reshape(-1)
    except (AttributeError, TypeError, ValueError):
        pair = np.empty(0)
    if pair.shape != (2,) or not np.isfinite(pair).all():
        raise DipgoError(
            f"{name}, key {key}",
            found=reprlib.repr(step[key]),
            expected="two finite numbers, the reuse score and the keep score",
            remedy=REMEDY,
        )
    return pair


def _place(key: Key) -> tuple[int, int, int, bool]:
    """Returns a sort key: blocks in the order in which the denoiser runs them, resnets first."""
    part, word, index, layer = key
    sign = -1 if part == "up" else 1
    return PARTS.index(part), sign * index, sign * (layer or 0), "resnet" not in word


def _name_blocks(keys: list[Key]) -> tuple[str, ...]:
    """Returns the module paths of diffusers' U-Nets for the keys."""
    last: dict[object, int] = {}
    for part, _, index, layer in keys:
        last[part] = max(index, last.get(part, index))
        last[part, index] = max(layer or 0, last.get((part, index), layer or 0))
    if all(layer in (None, 0) for *_, layer in keys):
        return tuple(_name_part(key, last) for key in keys)
    return tuple(_name_part(key, last) + _name_layer(key, last) for key in keys)


def _name_part(key: Key, last: dict[object, int]) -> str:
    """Returns the path of a block; `last` is the highest index of each part."""
    part, _, index, _ = key
    if part == "mid":
        return "mid_block"
    return f"{part}_blocks.{last[part] - index if part == 'up' else index}"


def _name_layer(key: Key, last: dict[object, int]) -> str:
    """Returns the path of the layer in its block; an up block's layers count from the last.

    `last` is the highest layer of each block.
    """
    part, word, index, layer = key
    number = layer or 0
    if word == "mid_block":
        return ""
    if word in ("downsampler", "upsampler"):
        return f".{word}s.0"
    if part == "up":
        number = last[part, index] - number
    for module in ("resnet", "attention"):
        if module in word:
            return f".{module}s.{number}"
    return f".{word}.{number}"
