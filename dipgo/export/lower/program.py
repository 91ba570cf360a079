"""Makes an exported program of a graph that was cut out of one, without capturing it again.

`torch.export` would run the graph once more, an operator at a time, and find what it holds already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)

from dipgo.compiler.trace.torch_private import training_verifier, tree_flatten


def program_of(module: fx.GraphModule, example: Sequence[torch.Tensor]) -> ExportedProgram | None:
    """Returns the module as a program, or None if it does not say what its values are.

    Args:
        module: A module of static shapes whose nodes come from an exported program: each has a fake
            tensor of its value in `meta["val"]`.
        example: An example of each input. One of another shape or type than the module's makes it
            None, for the other values would be others too.
    """
    if not _is_of(module, example):
        return None
    sources = {str(node.target): node for node in module.graph.find_nodes(op="get_attr")}
    named = (  # in the order of torch.export
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    )
    state = {name: tensor for name, tensor in named if name in sources}
    graph, inputs = fx.Graph(), []
    weights: dict[str, fx.Node] = {}
    for name, tensor in state.items():
        weights[name] = _placeholder(graph, f"p_{name}", sources[name])
        inputs.append(_weight(weights[name], name, tensor))
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            copies[node] = _placeholder(graph, str(node.target), node)
            inputs.append(InputSpec(InputKind.USER_INPUT, _argument(copies[node]), None))
        elif node.op == "get_attr":
            copies[node] = weights[str(node.target)]
        else:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    (values,) = graph.output_node().args
    assert isinstance(values, tuple)
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, _argument(value), None) for value in values]
    return ExportedProgram(
        root=fx.GraphModule(nn.Module(), graph),
        graph=graph,
        graph_signature=ExportGraphSignature(inputs, outputs),
        state_dict=state,
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", _signature(example, outputs))],
        example_inputs=(tuple(example), {}),
        constants={},
        verifiers=[training_verifier()],
    )


def _is_of(module: fx.GraphModule, example: Sequence[torch.Tensor]) -> bool:
    """Whether all nodes have a value, and the inputs the example's shapes and types."""
    if any("val" not in node.meta for node in module.graph.nodes if node.op != "output"):
        return False
    values = [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]
    return len(values) == len(example) and all(
        isinstance(value, torch.Tensor)
        and (value.shape, value.dtype, value.device) == (tensor.shape, tensor.dtype, tensor.device)
        for value, tensor in zip(values, example, strict=True)
    )


def _placeholder(graph: fx.Graph, name: str, source: fx.Node) -> fx.Node:
    """Returns an input whose name is an identifier, and that of no other node.

    `norm.weight` and `norm_weight` differ only in a character that identifiers may not hold.
    """
    node = graph.placeholder(re.sub(r"\W", "_", name, flags=re.ASCII))
    node.target = node.name  # fx makes names unique, which are then those of arguments
    node.meta = dict(source.meta)
    return node


def _argument(node: object) -> TensorArgument:
    assert isinstance(node, fx.Node)
    return TensorArgument(node.name)


def _weight(node: fx.Node, name: str, tensor: torch.Tensor) -> InputSpec:
    if isinstance(tensor, nn.Parameter):
        return InputSpec(InputKind.PARAMETER, _argument(node), name)
    return InputSpec(InputKind.BUFFER, _argument(node), name, persistent=True)


def _signature(
    example: Sequence[torch.Tensor], outputs: Sequence[OutputSpec]
) -> ModuleCallSignature:
    """Returns the trees of the call; as in a captured program the graph alone has the names."""
    _, in_spec = tree_flatten((tuple(example), {}))
    _, out_spec = tree_flatten(tuple(outputs))
    return ModuleCallSignature(inputs=[], outputs=[], in_spec=in_spec, out_spec=out_spec)
