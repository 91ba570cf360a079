"""Writes what `torch.export` has captured as a program of `dipgo.engines.torch.program_file`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.torch_private import is_check, operator_name
from dipgo.engines.torch.program_file import (
    END,
    FORMAT,
    ITEM,
    MOST_NUMBER,
    SIZE_OPERATORS,
    SLICE,
    VERSION,
    Argument,
    Constant,
    Items,
    Node,
    Program,
    Result,
    find_operator,
    is_word,
)

ALIASES = ("detach", "detach_", "alias", "lift_fresh_copy", "lift_fresh")
"""Operators whose result is their argument, where nothing is trained or written."""


_SIZE_NAMES: dict[Callable[..., Any], str] = {
    function: name for name, function in SIZE_OPERATORS.items()
} | {torch.sym_int: "int", torch.sym_float: "float", torch.sym_min: "min", torch.sym_max: "max"}


def program_of(captured: torch.export.ExportedProgram, inputs: int) -> Program:
    """Returns a captured function as data: `inputs` of its arguments are inputs, the rest weights.

    Raises:
        DipgoError: It calls an operator that a program cannot, or holds tensors of its own.
    """
    for spec in captured.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            raise _refused(f"a tensor of its own, {spec.target}")
    writer = _Writer()
    outputs: Any = ()
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            writer.add_argument(node)
        elif node.op == "output":
            (outputs,) = node.args
        elif node.op != "call_function":
            raise _refused(f"{node.op} {node.target}")
        elif not is_check(node.target):
            writer.add(node)
    return Program(
        format=FORMAT,
        version=VERSION,
        inputs=inputs,
        weights=writer.arguments - inputs,
        nodes=writer.nodes,
        outputs=[Result(writer.places[node]) for node in outputs],
    )


@dataclass
class _Writer:
    """The nodes that are written so far, and the place of each value among the values."""

    places: dict[fx.Node, int] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    arguments: int = 0

    def add_argument(self, node: fx.Node) -> None:
        """Adds an input or a weight; all of them come before the nodes."""
        self.places[node] = self.arguments
        self.arguments += 1

    def add(self, node: fx.Node) -> None:
        """Adds a call of an operator."""
        if _is_alias(node):
            (source, *_) = node.args
            assert isinstance(source, fx.Node)
            self.places[node] = self.places[source]
            return
        name = _name_of(node.target)
        if find_operator(name) is None:
            raise _refused(f"the operator {name}")
        self.places[node] = self.arguments + len(self.nodes)
        options = {key: self._argument(value) for key, value in node.kwargs.items()}
        arguments = list(map(self._argument, node.args))
        if name != SLICE and END in arguments:
            raise _refused(f"the number {END}")
        self.nodes.append(Node(name, arguments, options))

    def _argument(self, value: Any) -> Argument:
        match value:
            case fx.Node():
                return Result(self.places[value])
            case list() | tuple():
                return Items(list(map(self._argument, value)))
            case float() if not math.isfinite(value):
                return Constant("float", str(value))
            case torch.dtype() | torch.memory_format() | torch.layout():
                kind = type(value).__name__
                return Constant(kind, str(value).removeprefix("torch."))  # type: ignore[arg-type]
            case torch.device():
                return Constant("device", value.type)
            case str() if not is_word(value):
                raise _refused(f"the text {value!r}")
            case int() if abs(value) >= MOST_NUMBER and value != END:
                raise _refused(f"the number {value}")
            case None | bool() | int() | float() | str():
                return value
        raise _refused(f"an argument of type {type(value).__name__}")


def _is_alias(node: fx.Node) -> bool:
    """Returns whether the result is the first argument; dropping out is for training alone."""
    name = operator_name(node.target)
    return name in ALIASES or (name == "dropout" and node.args[2:] == (False,))


def _name_of(target: Any) -> str:
    if target is operator.getitem:
        return ITEM
    return _SIZE_NAMES.get(target) or str(target)


def _refused(found: str) -> DipgoError:
    return DipgoError(
        f"{setting('target')} torch",
        found=f"a model with {found}",
        expected="PyTorch's own operators alone, which need no code to be loaded",
        remedy="export for another target",
    )
