"""Folds float64 constants of a graph: no engine but a CPU's has float64.

Positions for rotary embeddings are computed in float64 from numbers alone: they are known when
tracing, and the same in every block. Each value that the graph reads of them becomes a tensor next
to the weights, of the type in which it is read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from dipgo.compiler.trace.torch_private import is_mutating, storage_id


def fold_wide_constants(program: torch.export.ExportedProgram) -> None:
    """Replaces float64 constants in place by tensors of the program, `folded.0` and so on."""
    wide = _computed_from_numbers(program.graph)
    read = [node for node in wide if wide[node] and any(user not in wide for user in node.users)]
    if not read:
        return
    values = _run(wide)
    for index, node in enumerate(dict.fromkeys(_viewed(node, values) for node in read)):
        _replace(program, node, values[node], index)
    for node in reversed(list(wide)):
        if not node.users and not is_mutating(node.target):
            program.graph.erase_node(node)


def _computed_from_numbers(graph: fx.Graph) -> dict[fx.Node, bool]:
    """Returns the nodes that read no input and no weight, in order; True if float64 is involved."""
    constants: dict[fx.Node, bool] = {}
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.op == "call_function" and all(source in constants for source in sources):
            value = node.meta.get("val")
            is_wide = isinstance(value, torch.Tensor) and value.dtype == torch.float64
            constants[node] = is_wide or any(constants[source] for source in sources)
    return constants


def _run(nodes: dict[fx.Node, bool]) -> dict[fx.Node, Any]:
    """Computes all of the nodes, in order, since some may write into what others made."""
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in nodes:
            assert callable(node.target)
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: values[source])
            values[node] = node.target(*args, **kwargs)
    return values


def _viewed(node: fx.Node, values: dict[fx.Node, Any]) -> fx.Node:
    """Returns the node whose storage `node` views in full, or `node`.

    Several blocks may each have a view of the same storage.
    """
    for source in node.all_input_nodes:
        whole = values[source].numel() == values[node].numel()
        if whole and storage_id(values[source]) == storage_id(values[node]):
            return _viewed(source, values)
    return node


def _replace(
    program: torch.export.ExportedProgram, node: fx.Node, value: torch.Tensor, index: int
) -> None:
    graph, name = program.graph, f"folded.{index}"
    with graph.inserting_before(next(iter(graph.nodes))):
        placeholder = graph.placeholder(f"c_folded_{index}")
    placeholder.meta["val"] = node.meta["val"]
    argument = TensorArgument(placeholder.name)
    spec = InputSpec(InputKind.CONSTANT_TENSOR, argument, name)
    program.graph_signature.input_specs.insert(0, spec)
    program.constants[name] = value.contiguous()
    node.replace_all_uses_with(placeholder)
