"""Turns the file of a program into a function of tensors."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dipgo.common.errors import DipgoError
from dipgo.common.typed_json import decode_json
from dipgo.engines.torch.program_file import (
    END,
    MOST_NUMBER,
    SLICE,
    Argument,
    Constant,
    Items,
    Node,
    Program,
    Result,
    find_operator,
    is_word,
)

DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16"),
        *("int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128"),
    )
}

MEMORY_FORMATS = {
    name: getattr(torch, name)
    for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}

LAYOUTS = {"strided": torch.strided}

FLOATS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


CONSTANTS: Mapping[str, Mapping[str, Any]] = {
    "dtype": DTYPES,
    "memory_format": MEMORY_FORMATS,
    "layout": LAYOUTS,
    "float": FLOATS,
}
"""PyTorch's own constants, by kind and name."""

DEEPEST = 4
"""Lists within lists that an operator takes: fewer than this."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program ready to run: `module` takes inputs and weights, and returns a tuple."""

    module: Callable[..., Sequence[torch.Tensor]]
    inputs: int
    weights: int
    outputs: int


def load_program(content: bytes, device: str, *, name: str, remedy: str) -> Loaded:
    """Returns a program as a function on a device.

    Args:
        content: The file.
        device: Where tensors are made: `cpu` or `cuda`.
        name: The file's name, for errors.
        remedy: What the user can do about a damaged file.

    Raises:
        DipgoError: The file is not a program, or calls what a program may not.
    """
    program = decode_json(content, Program, name=name, remedy=remedy, keys_once=False)
    graph = fx.Graph()
    values = [graph.placeholder(f"value{i}") for i in range(program.inputs + program.weights)]
    reader = _Reader(graph, values, torch.device(device))
    try:
        for index, node in enumerate(program.nodes):
            name_of_node = f"{name}, node {index}"
            reader.add(node)
        name_of_node = f"{name}, outputs"
        graph.output(tuple(map(reader.value, program.outputs)))
    except ValueError as error:
        raise DipgoError(
            name_of_node,
            found=str(error),
            expected="operators and arguments that a program may have",
            remedy=remedy,
        ) from None
    module = fx.GraphModule(torch.nn.Module(), graph)
    # Called as a module it would print its source where it fails.
    return Loaded(module.forward, program.inputs, program.weights, len(program.outputs))


@dataclass
class _Reader:
    """Adds nodes to a graph. Its methods raise ValueError for what a program may not have."""

    graph: fx.Graph
    values: list[fx.Node]
    device: torch.device

    def add(self, node: Node) -> None:
        """Adds a node; its result is the next value."""
        target = find_operator(node.operator)
        if target is None:
            raise ValueError(f"the operator {node.operator}")
        given: Sequence[Argument] = node.arguments
        if node.operator == SLICE:
            given = [MOST_NUMBER - 1 if item == END else item for item in given]
        arguments = tuple(self._argument(argument) for argument in given)
        options = {name: self._argument(argument) for name, argument in node.options.items()}
        if not all(map(_is_name, options)):
            raise ValueError(f"the options {', '.join(options)}")
        self.values.append(self.graph.call_function(target, arguments, options))

    def value(self, result: Result) -> fx.Node:
        """Returns a value that is there already."""
        if result.index >= len(self.values):
            raise ValueError(f"the value {result.index} of {len(self.values)}")
        return self.values[result.index]

    def _argument(self, argument: Argument, depth: int = 0) -> Any:
        match argument:
            case Result():
                return self.value(argument)
            case Constant("device"):
                return self.device
            case Constant(kind, name):
                if name not in CONSTANTS[kind]:
                    raise ValueError(f"the {kind} {name}")
                return CONSTANTS[kind][name]
            case Items(items):
                if depth == DEEPEST:
                    raise ValueError("lists within lists")
                return [self._argument(item, depth + 1) for item in items]
            case int() if abs(argument) >= MOST_NUMBER:
                raise ValueError(f"the number {argument}")
            case str() if not is_word(argument):
                raise ValueError(f"the text {argument}")
            case _:
                return argument


def _is_name(option: str) -> bool:
    """Returns whether an option's name may become Python's text."""
    is_plain = re.fullmatch(r"[a-z][a-z_]*", option, re.ASCII) is not None
    return is_plain and not keyword.iskeyword(option)
