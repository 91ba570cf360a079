"""Lowers equal modules once: tests export the same few pipelines again and again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn

from dipgo.compiler.trace.symbolic_sizes import SizedModule
from dipgo.compiler.trace.vectorize import LanedModule

Lower = Callable[[nn.Module, tuple[torch.Tensor, ...], Any, Container[str]], ir.Model]
"""`dipgo.export.lower.onnx._export`."""

MOST = 128
"""Graphs that are kept."""
LARGEST = 16 << 20
"""Bytes of a module's weights; larger ones are lowered anew."""


class LowerOnce:
    """Keeps what a function returned, by its arguments.

    Modules are equal if they have the same code and the same weights, bit for bit.
    """

    def __init__(self, lower: Lower) -> None:
        self.lower = lower
        self.graphs: OrderedDict[str, tuple[nn.Module, ir.Model]] = OrderedDict()
        """By key, the module that a graph is of, whose weights it holds, and the graph."""
        self.anew = False
        """Whether every module is lowered anew."""

    def __call__(
        self,
        module: nn.Module,
        example: tuple[torch.Tensor, ...],
        dynamic_shapes: Any,
        weights: Container[str],
    ) -> ir.Model:
        """Returns a graph of its own for each call."""
        key = None if self.anew else _key(module, example, dynamic_shapes)
        if key is None:
            return self.lower(module, example, dynamic_shapes, weights)
        stored = self.graphs.get(key)
        if stored and _key(stored[0], example, dynamic_shapes) != key:  # changed in place
            stored = None
        if not stored:
            stored = module, self.lower(module, example, dynamic_shapes, weights)
            self.graphs[key] = stored
            if len(self.graphs) > MOST:
                self.graphs.popitem(last=False)
        self.graphs.move_to_end(key)
        return stored[1].clone()


def _key(module: nn.Module, example: tuple[torch.Tensor, ...], dynamic_shapes: Any) -> str | None:
    """Returns equal keys for equal arguments; None for modules whose code it cannot read."""
    state = module.state_dict()
    if sum(tensor.nbytes for tensor in state.values()) > LARGEST:
        return None
    key = hashlib.sha256()
    for path, part in module.named_modules():
        if isinstance(part, fx.GraphModule):
            if not all(map(_is_named, part.graph.nodes)):
                return None
            values = [_value(node) for node in part.graph.nodes]
            key.update(f"{path} {part.code} {values}".encode())
        elif isinstance(part, LanedModule):
            key.update(f"{path} lanes {part.stacked}".encode())
        elif isinstance(part, SizedModule):
            key.update(f"{path} sizes {_sizes(part)}".encode())
        elif type(part) is not nn.Module:  # fx makes plain ones, to hold nested weights
            return None
    for name, tensor in state.items():
        key.update(f"{name} {_describe(tensor)}".encode())
        key.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    key.update(repr([*map(_describe, example), dynamic_shapes]).encode())
    return key.hexdigest()


def _is_named(node: fx.Node) -> bool:
    """Whether the code says what the node calls: an operator, not a function with that name."""
    target = node.target
    return node.op != "call_function" or (
        isinstance(target, torch._ops.OpOverload)
        or getattr(target, "__module__", "") in ("_operator", "math")
    )


def _sizes(module: SizedModule) -> list[str]:
    """What the traces of other sizes hold: numbers, and sizes of values."""
    nodes = [node for variants in module.variants.values() for node in variants]
    return [f"{node.target} {node.args} {node.kwargs} {_value(node)}" for node in nodes]


def _value(node: fx.Node) -> str:
    """What the node says of its value, if anything."""
    value = node.meta.get("val")
    return _describe(value) if isinstance(value, torch.Tensor) else repr(value)


def _describe(tensor: torch.Tensor) -> str:
    return f"{type(tensor).__name__} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}"
