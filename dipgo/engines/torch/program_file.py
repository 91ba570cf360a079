"""Defines the file of a program for PyTorch: a list of operators, as data.

A program that `torch.export` saves may hold pickles and source text, which run when it is loaded,
and an export is a file from a stranger. This one holds names of operators of an allowed kind, and
numbers.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import torch
from msgspec import Meta
from torch import fx

FORMAT: Literal["dipgo.torch-program"] = "dipgo.torch-program"

VERSION: Literal[1] = 1

MOST_NODES = 200_000
"""Nodes of a program: some ten times those of the largest denoisers in one segment."""

ITEM = "item"
"""The operator that takes one of several results."""

SIZE_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "neg": operator.neg,
    "int": int,
    "float": float,
    "min": min,
    "max": max,
}
"""Arithmetic on sizes that differ between calls, by name."""

WORDS = frozenset(
    {"none", "tanh", "floor", "trunc", "constant", "reflect", "replicate", "circular"}
)
"""Texts that operators take: kinds of rounding, padding and activation. Never a path."""

_EQUATION = re.compile(r"[A-Za-z,.]+->[A-Za-z.]*", re.ASCII)

OPENS_FILES = frozenset({"from_file"})

SEEDED = frozenset({"scaled_dot_product_attention"})
"""Operators that draw random numbers only if they are told to drop out some of theirs."""

PRIVATE = frozenset(
    {"_to_copy", "_unsafe_view", "_softmax", "_log_softmax", "_upsample_nearest_exact2d"}
)
"""Operators that PyTorch calls private, and that check their arguments like public ones."""

_NAME = re.compile(r"aten\.([a-z_][a-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)


class Result(msgspec.Struct, frozen=True, tag="result", tag_field="is", forbid_unknown_fields=True):
    """A value: input, weight, or result of a node, counted in this order."""

    index: Annotated[int, Meta(ge=0)]


class Constant(
    msgspec.Struct, frozen=True, tag="constant", tag_field="is", forbid_unknown_fields=True
):
    """A constant of PyTorch: `dtype` float16, `memory_format` channels_last, `layout` strided.

    The `device` is the one that the program is loaded for, whatever its name; a `float` is an
    infinity or NaN, which JSON lacks.
    """

    kind: Literal["dtype", "memory_format", "layout", "device", "float"]
    name: str


class Items(msgspec.Struct, frozen=True, tag="items", tag_field="is", forbid_unknown_fields=True):
    """A list of arguments."""

    items: list[Argument]


Argument: TypeAlias = Result | Constant | Items | bool | int | float | str | None


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of an operator: `aten.add.Tensor`, a name of SIZE_OPERATORS, or ITEM."""

    operator: str
    arguments: list[Argument]
    options: dict[str, Argument] = {}


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `inputs` and `weights` are how many of each the program takes, in this order."""

    format: Literal["dipgo.torch-program"]
    version: Literal[1]
    inputs: Annotated[int, Meta(ge=0)]
    weights: Annotated[int, Meta(ge=0)]
    nodes: Annotated[list[Node], Meta(max_length=MOST_NODES)]
    outputs: list[Result]


def find_operator(name: str) -> Callable[..., Any] | None:
    """Returns the operator of this name, or None if there is none that a program may call.

    Allowed are those of PyTorch's own library that are public, which check their arguments, and
    that write into none of them.
    """
    if name == ITEM:
        return operator.getitem
    if name in SIZE_OPERATORS:
        return SIZE_OPERATORS[name]
    match = _NAME.fullmatch(name)
    if match is None or match[1] in OPENS_FILES:
        return None
    if match[1].startswith("_") and match[1] not in PRIVATE:
        return None
    found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
    if found is None or str(found) != name:
        return None
    # Impure are operators that write into an argument, and those that draw random numbers.
    impure = match[1] not in SEEDED and fx.Graph().call_function(found).is_impure()
    return None if impure else found


def is_word(text: str) -> bool:
    """Returns whether an operator may be given this text: a word of WORDS, or einsum's equation."""
    return text in WORDS or _EQUATION.fullmatch(text) is not None
