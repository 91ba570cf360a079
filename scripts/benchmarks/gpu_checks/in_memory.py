"""The torch target without an export directory, which would need onnx: an executor of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_map

from dipgo.compiler.compile import Compiled
from dipgo.compiler.oracle import fill_tables
from dipgo.compiler.trace.trace import Traced
from dipgo.compiler.trace.vectorize import LanedModule
from dipgo.engines.launches import list_launches
from dipgo.engines.torch.executor import Executor, Function
from dipgo.ir.plan.nodes import Callee


def make_executor(compiled: Compiled, device: str) -> Executor:
    """All launches of the plan on `device`; on `cuda` captured as one graph."""
    tables = {
        name: one.numpy() for name, one in fill_tables(compiled.plan, compiled.traced).items()
    }
    functions = callee_functions(compiled, device)
    return Executor(list_launches(compiled.plan, tables), functions, device)


def callee_functions(compiled: Compiled, device: str) -> Mapping[str, Function]:
    """What computes each callee on `device`, all its lanes at once; weights are there once."""
    held: dict[str, torch.Tensor] = {}

    def function(callee: Callee) -> Callable[..., Any]:
        module = move(_module(compiled.traced, callee), torch.device(device), held)
        if not callee.stacked:
            return module
        return LanedModule(module, [value.name in callee.stacked for value in callee.inputs])

    return {callee.name: function(callee) for callee in compiled.plan.callees}


def _module(traced: Traced, callee: Callee) -> fx.GraphModule:
    return traced.module(
        callee.members or (callee.name,),
        [value.name for value in callee.inputs],
        [value.name for value in callee.outputs],
    )


def move(
    module: fx.GraphModule, device: torch.device, held: dict[str, torch.Tensor]
) -> fx.GraphModule:
    """The module on `device`. `held` are the weights that are there already, by name.

    `Module.to` would not do: it gives each module a copy of the weights that segments share, and
    moves the traced program's own parameters along.
    """
    weights = module.state_dict()
    held.update({name: one.to(device) for name, one in weights.items() if name not in held})
    name_device(module.graph, device)
    return fx.GraphModule({name: held[name] for name in weights}, module.graph)


def name_device(graph: fx.Graph, device: torch.device) -> None:
    """Operators that make tensors (`arange`, `zeros`, `to`) name the device of the trace, a CPU."""

    def renamed(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) else argument

    for node in graph.nodes:
        node.args, node.kwargs = tree_map(renamed, (node.args, node.kwargs))
