"""Wraps every private name of torch that the package uses in a function; no other file has any.

Each function says what it relies on. tests/compiler/trace/test_torch_private.py fails with the name
that a new version of torch has dropped.
"""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._export.verifier import TrainingIRVerifier
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode"]
"""Sees every operator while active. Relies on `torch.utils._python_dispatch`, since torch 1.13."""


# Trees of arguments: nested tuples, lists and dicts. torch has no public module for them.


def tree_flatten(tree: Any) -> tuple[list[Any], Any]:
    """Returns the leaves, and what `tree_unflatten` needs to put others in their places.

    Relies on `torch.utils._pytree.tree_flatten`, since torch 1.8.
    """
    return pytree.tree_flatten(tree)


def tree_unflatten(leaves: Sequence[Any], spec: Any) -> Any:
    """Returns the tree that `tree_flatten` took apart, with these leaves.

    Relies on `torch.utils._pytree.tree_unflatten`, since torch 1.8.
    """
    return pytree.tree_unflatten(leaves, spec)


def tree_leaves(tree: Any) -> list[Any]:
    """Returns the leaves in order. Relies on `torch.utils._pytree.tree_leaves`, since torch 2.2."""
    return pytree.tree_leaves(tree)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Returns the tree of the function's results.

    Relies on `torch.utils._pytree.tree_map`, since torch 1.8.
    """
    return pytree.tree_map(function, tree)


# Operators.


def conversion() -> Any:
    """Returns the operator that copies a tensor to another type.

    Relies on `torch.ops.aten._to_copy`, since torch 1.11.
    """
    return torch.ops.aten._to_copy.default


def assertion() -> Any:
    """Returns the operator that checks a tensor's type, which traces of casts hold.

    Relies on `torch.ops.aten._assert_tensor_metadata`, since torch 2.0.
    """
    return torch.ops.aten._assert_tensor_metadata.default


def is_check(target: Any) -> bool:
    """Returns whether an operator only checks what holds for every call of a plan.

    Relies on `torch.ops.aten._assert_scalar`, since torch 2.5, besides `assertion`.
    """
    checks = (assertion(), torch.ops.aten._assert_scalar.default)
    return target in checks or operator_name(target).startswith("sym_constrain_range")


def operator_name(target: Any) -> str:
    """Returns `group_norm` for `aten.group_norm.default`, "" for what is not an operator.

    Relies on `torch._ops.OpOverload._opname`, in torch 2.11.
    """
    return target._opname if isinstance(target, torch._ops.OpOverload) else ""


def argument_defaults(target: Any) -> list[tuple[str, Any]]:
    """Returns the arguments of an operator in order, each with its default or None.

    Relies on `torch._ops.OpOverload._schema` and its `arguments`, since torch 1.12.
    """
    return [(argument.name, argument.default_value) for argument in target._schema.arguments]


def is_mutating(target: Any) -> bool:
    """Returns whether it is an operator that writes into an argument.

    Relies on `torch._ops.OpOverload` and `_schema.is_mutable`, since torch 1.12.
    """
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


# Modules and tensors.


def module_tables() -> tuple[str, ...]:
    """Returns the attributes in which a module keeps parameters, buffers and modules by name.

    Relies on these attributes of `torch.nn.Module`, since torch 1.0.
    """
    return "_parameters", "_buffers", "_modules"


def hook_tables() -> tuple[str, ...]:
    """Returns the attributes in which a module keeps hooks that run before and after `forward`.

    Relies on these attributes of `torch.nn.Module`, since torch 1.0.
    """
    return "_forward_pre_hooks", "_forward_hooks"


def storage_id(tensor: torch.Tensor) -> int:
    """Returns an id that differs between storages alive at a time, also on the meta device.

    Relies on `torch.UntypedStorage._cdata`, since torch 2.0: `data_ptr` is 0 on the meta device.
    """
    pointer: int = tensor.untyped_storage()._cdata
    return pointer


def fake_mode(value: Any) -> Any:
    """Returns the mode that a traced value belongs to, None for any other value.

    Relies on `torch._subclasses.FakeTensor.fake_mode`, since torch 1.13.
    """
    return value.fake_mode if isinstance(value, torch._subclasses.FakeTensor) else None


# Exported programs.

MODULE_STACK = "nn_module_stack"


def module_stack(node: fx.Node) -> list[tuple[str, str]]:
    """Returns the modules that a node ran in, outermost first: the key of the call, and the path.

    A path may end in `@` and a number where the module is called again. Relies on the node's
    `nn_module_stack`, a dict of key to (path, class), as torch 2.1 and later export it.
    """
    stack = node.meta.get(MODULE_STACK, {})
    return [(key, str(path)) for key, (path, _) in stack.items()]


def keep_module_stack_alone(node: fx.Node, home: fx.Node) -> None:
    """Gives `node` the modules of `home`, and no other metadata.

    Relies on the node's `nn_module_stack` as well.
    """
    node.meta = {key: home.meta[key] for key in (MODULE_STACK,) if key in home.meta}


def training_verifier() -> Any:
    """Returns the class that checks programs as `torch.export` captures them.

    Relies on `torch._export.verifier.TrainingIRVerifier`, since torch 2.5: the default refuses
    operators that write into a tensor.
    """
    return TrainingIRVerifier


REGISTRATION = "torch.onnx._internal.exporter._registration"


def registration_logger() -> logging.Logger:
    """Returns the logger of the ONNX exporter's remarks on packages that are not installed.

    Relies on the module `torch.onnx._internal.exporter._registration`, since torch 2.5.
    """
    return logging.getLogger(REGISTRATION)


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Lets the ONNX exporter read its table of operators once, not for each graph.

    It would parse the source of some 500 functions again each time, half of what a small graph
    takes. Each call still gets a table of its own, in which it may register further operators.

    Relies on the classmethod `ONNXRegistry.from_torchlib` of
    `torch.onnx._internal.exporter._registration` and on the dict `functions`, since torch 2.6.
    """
    registry: Any = getattr(importlib.import_module(REGISTRATION), "ONNXRegistry", None)
    if not hasattr(registry, "from_torchlib"):  # another release's exporter, which may be slower
        yield
        return
    read, as_it_was = registry.from_torchlib, vars(registry)["from_torchlib"]

    def from_torchlib(**options: Any) -> Any:
        key = tuple(sorted(options.items()))
        if key not in _OPERATORS:
            _OPERATORS[key] = read(**options)
        table = copy.copy(_OPERATORS[key])
        table.functions = {name: list(kinds) for name, kinds in table.functions.items()}
        return table

    registry.from_torchlib = staticmethod(from_torchlib)
    try:
        yield
    finally:
        registry.from_torchlib = as_it_was


_OPERATORS: dict[tuple[tuple[str, Any], ...], Any] = {}
"""The exporter's tables of operators by their options, such as the opset; they stay as read."""
