"""What `torch_private` relies on is in the torch that is installed; each name is a test."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from dipgo.compiler.trace import torch_private
from tests.support.private_names import private_names, read

aten = torch.ops.aten
FILE = Path(inspect.getfile(torch_private))

NAMES = (
    "torch._export.verifier.TrainingIRVerifier",
    "torch._ops.OpOverload",
    "torch._subclasses.FakeTensor",
    "torch.onnx._internal.exporter._registration",
    "torch.ops.aten._assert_scalar.default",
    "torch.ops.aten._assert_tensor_metadata.default",
    "torch.ops.aten._to_copy.default",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._pytree.tree_flatten",
    "torch.utils._pytree.tree_leaves",
    "torch.utils._pytree.tree_map",
    "torch.utils._pytree.tree_unflatten",
)
MEMBERS = {
    "OpOverload._opname": lambda: aten.add.Tensor._opname,
    "OpOverload._schema.arguments": lambda: aten.add.Tensor._schema.arguments[0].default_value,
    "OpOverload._schema.is_mutable": lambda: aten.add.Tensor._schema.is_mutable,
    "UntypedStorage._cdata": lambda: torch.zeros(1).untyped_storage()._cdata,
    "FakeTensor.fake_mode": lambda: _program().graph.output_node().args[0][0].meta["val"].fake_mode,
    "Module._parameters": lambda: torch.nn.Module()._parameters,
    "Module._buffers": lambda: torch.nn.Module()._buffers,
    "Module._modules": lambda: torch.nn.Module()._modules,
    "Module._forward_pre_hooks": lambda: torch.nn.Module()._forward_pre_hooks,
    "Module._forward_hooks": lambda: torch.nn.Module()._forward_hooks,
    "Node.meta[nn_module_stack]": lambda: _linear().meta["nn_module_stack"],
    "ONNXRegistry.from_torchlib": lambda: vars(_registry())["from_torchlib"].__func__,
    "ONNXRegistry.functions": lambda: _registry()().functions.items(),
}


@cache
def _program() -> torch.export.ExportedProgram:
    """A linear layer inside a module, over a symbolic number of rows."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3))
    shapes = ({0: torch.export.Dim("rows", min=2, max=9)},)
    return torch.export.export(module, (torch.zeros(4, 2),), dynamic_shapes=shapes)


def _registry() -> Any:
    return importlib.import_module(torch_private.REGISTRATION).ONNXRegistry


def _linear() -> torch.fx.Node:
    (node,) = _program().graph.find_nodes(op="call_function", target=aten.linear.default)
    return node


@pytest.mark.parametrize("name", NAMES)
def test_torch_has(name: str) -> None:
    if name.endswith("_registration"):
        importlib.import_module(name)
    else:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("name", MEMBERS)
def test_torch_objects_have(name: str) -> None:
    MEMBERS[name]()


def test_every_private_name_has_its_test() -> None:
    tested = {part for name in (*NAMES, *MEMBERS) for part in name.split(".")}
    used = {name for _, name in private_names(read(FILE), set())}
    assert used <= tested
    assert used == {part for part in tested if part.startswith("_")}


def test_every_function_says_what_it_relies_on() -> None:
    for name, function in inspect.getmembers(torch_private, inspect.isfunction):
        if function.__module__ == torch_private.__name__:
            assert "Relies on" in (inspect.getdoc(function) or ""), name


def test_operators() -> None:
    assert torch_private.operator_name(aten.group_norm.default) == "group_norm"
    assert torch_private.operator_name("input") == ""
    assert torch_private.is_mutating(aten.add_.Tensor)
    assert not torch_private.is_mutating(aten.add.Tensor)
    assert torch_private.is_check(aten._assert_tensor_metadata.default)
    assert torch_private.is_check(aten.sym_constrain_range_for_size.default)
    assert not torch_private.is_check(aten.add.Tensor)
    defaults = torch_private.argument_defaults(aten.add.Tensor)
    assert defaults == [("self", None), ("other", None), ("alpha", 1)]


def test_modules_keep_what_they_have_in_tables() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    tables = [
        vars(part)[name] for part in module.modules() for name in torch_private.module_tables()
    ]
    names = {name for table in tables for name in table}
    assert {"_parameters", "_buffers", "_modules"} == set(torch_private.module_tables())
    assert names == {"0", "weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_storages_are_told_apart(device: str) -> None:
    one, other = (torch.zeros(4, device=device) for _ in range(2))
    assert torch_private.storage_id(one) == torch_private.storage_id(one[1:])
    assert torch_private.storage_id(one) != torch_private.storage_id(other)


def test_nodes_name_the_modules_that_they_ran_in() -> None:
    assert [path for _, path in torch_private.module_stack(_linear())] == ["", "0"]
    copied = torch.fx.Graph().placeholder("x")
    torch_private.keep_module_stack_alone(copied, _linear())
    assert copied.meta == {"nn_module_stack": _linear().meta["nn_module_stack"]}


def test_the_exporter_s_remarks_come_from_the_logger() -> None:
    module = importlib.import_module(torch_private.REGISTRATION)
    assert module.logger is torch_private.registration_logger()
    assert isinstance(module.logger, logging.Logger)


def test_the_exporters_operators_are_read_once() -> None:
    """Each graph gets a table of its own, equal to the exporter's; afterwards all is as before."""
    registry, opset = _registry(), 23
    before = vars(registry)["from_torchlib"]
    wanted = registry.from_torchlib(opset_version=opset)
    with torch_private.operators_read_once():
        first, second = (registry().from_torchlib(opset_version=opset) for _ in range(2))
        other = registry.from_torchlib(opset_version=opset - 3)
    assert vars(registry)["from_torchlib"] is before
    assert (first.opset_version, other.opset_version) == (opset, opset - 3)
    for table in (first, second):
        assert list(table.functions) == list(wanted.functions)
        for name, kinds in table.functions.items():
            places = [(kind.onnx_function, kind.is_complex) for kind in wanted.functions[name]]
            assert [(kind.onnx_function, kind.is_complex) for kind in kinds] == places
    first.register_op(aten.relu.default, lambda x: x)
    with torch_private.operators_read_once():
        third = registry.from_torchlib(opset_version=opset)
    sizes = [len(table.get_decomps(aten.relu.default)) for table in (first, second, third)]
    assert sizes[0] - 1 == sizes[1] == sizes[2]
