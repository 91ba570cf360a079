"""Arithmetic: how a part of the traced graph is computed by the oracle.

CPUs compute in half precision slowly or not at all, and add up in it where tensor cores add up in
fp32. So an operator on narrow numbers is computed in fp32 here, and its result rounded.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_map

NARROW = (torch.float16, torch.bfloat16)


class Rounded(fx.Interpreter):
    """Every operator's result has the type that the graph gives it: sums in fp32, then rounded."""

    def run_node(self, node: fx.Node) -> Any:
        """Widens narrow operands, computes, and rounds to the type in the node's metadata."""
        if node.op != "call_function" or not _is_narrow(node):
            return super().run_node(node)
        assert callable(node.target)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        result, kind = node.target(*_widened(args), **_widened(kwargs)), node.meta["val"]
        if isinstance(result, torch.Tensor):
            return result.to(kind.dtype)
        return [one.to(meta.dtype) for one, meta in zip(result, kind, strict=True)]


class Exact(fx.Interpreter):
    """The same graph in fp32 throughout, as if no precision had been applied."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Conversions to a narrow type leave their operand as it is."""
        return target(*_widened(args), **_widened(kwargs))


def _is_narrow(node: fx.Node) -> bool:
    """Whether it reads or yields narrow numbers; an element of a list is taken as it is."""
    if node.target is operator.getitem:
        return False
    values = [one.meta.get("val") for one in (node, *node.all_input_nodes)]
    return any(isinstance(one, torch.Tensor) and one.dtype in NARROW for one in values)


def _widened(arguments: Any) -> Any:
    return tree_map(_widen, arguments)


def _widen(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor) and argument.dtype in NARROW:
        return argument.float()
    return torch.float32 if argument in NARROW else argument
