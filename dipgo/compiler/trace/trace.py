"""Trace: a denoiser becomes a BlockGraph, read off the graph that `torch.export` captures.

Every node of the exported graph says which module it ran in, so the blocks, the edges between
them, MACs and parameters need no model-specific code. docs/design.md, stage 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import fx, nn

from dipgo.compiler.trace.dtypes import tensor_type
from dipgo.compiler.trace.fold_constants import fold_wide_constants
from dipgo.compiler.trace.macs import node_macs
from dipgo.compiler.trace.partition import Partition, partition
from dipgo.compiler.trace.precision import FP32, Precision, apply_precision
from dipgo.compiler.trace.torch_private import assertion
from dipgo.ir.graph import PART, REUSE_FILTER, BlockGraph, Dependence, GraphInput, Node, ReuseFilter
from dipgo.ir.types import Value


@dataclass(frozen=True)
class Traced:
    """A BlockGraph and the exported program that it was read off."""

    graph: BlockGraph
    program: torch.export.ExportedProgram
    partition: Partition
    prefix: str
    precision: Precision = FP32
    given_tables: Mapping[str, Mapping[int, torch.Tensor]] = field(default_factory=dict)
    """Tables by name that are no function of the timestep, by rows of the SubNet."""

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers and constants by the name of their placeholder in the program.

        Each is of the type that the graph has it in.
        """
        types = {
            node.name: node.meta["val"].dtype
            for node in self.program.graph.find_nodes(op="placeholder")
        }
        return {name: tensor.to(types[name]) for name, tensor in self.exact_tensors.items()}

    @cached_property
    def exact_tensors(self) -> dict[str, torch.Tensor]:
        """The same, as they were before `precision` was applied."""
        stored = {**self.program.constants, **self.program.state_dict}
        return {placeholder: stored[name] for placeholder, name in self._stored_names.items()}

    @cached_property
    def tensor_names(self) -> dict[str, str]:
        """For every such placeholder the tensor's name in the denoiser's state dict."""
        return {key: name.removeprefix(self.prefix) for key, name in self._stored_names.items()}

    @cached_property
    def _stored_names(self) -> dict[str, str]:
        """For every such placeholder the tensor's name in the program."""
        signature = self.program.graph_signature
        return {
            **signature.inputs_to_lifted_tensor_constants,
            **signature.inputs_to_buffers,
            **signature.inputs_to_parameters,
        }

    def module(
        self,
        members: Sequence[str],
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        exact: bool = False,
    ) -> fx.GraphModule:
        """The part of the program that computes `outputs` from `inputs` with these nodes.

        `exact` gives it the weights as they were before `precision` was applied.
        """
        tensors = self.exact_tensors if exact else self.tensors
        wanted = {node for name in members for node in self.partition.members[name]}
        values = self.partition.values
        graph, copies = fx.Graph(), {}
        for index, name in enumerate(inputs):
            copies[values[name]] = graph.placeholder(_identifier(name, index))
            copies[values[name]].meta = dict(values[name].meta)
        attributes: dict[str, torch.Tensor] = {}
        for node in self._with_constants(wanted):
            if node in copies:
                continue
            if node.op == "placeholder":
                attribute = self.tensor_names[node.name]
                attributes[attribute] = tensors[node.name]
                copies[node] = graph.get_attr(attribute)
            else:
                copies[node] = graph.node_copy(node, lambda source: copies[source])
        graph.output(tuple(copies[values[name]] for name in outputs))
        return fx.GraphModule(attributes, graph)

    def _with_constants(self, wanted: set[fx.Node]) -> Iterable[fx.Node]:
        """`wanted`, and the parameters and constants that it needs, in topological order."""
        needed = set(wanted)
        for node in reversed(self.program.graph.nodes):
            if node in needed:
                constant = self.partition.constants
                needed.update(source for source in node.all_input_nodes if source in constant)
        return (node for node in self.program.graph.nodes if node in needed)


def _identifier(name: str, index: int) -> str:
    """One for each index: `block:0` and `block~0` differ only in what no identifier may hold."""
    return "".join(one if one.isalnum() else "_" for one in name) + f"_{index}"


def trace(
    module: nn.Module,
    example: Mapping[str, torch.Tensor],
    roles: Mapping[str, Dependence],
    blocks: Sequence[str],
    *,
    model_class: str,
    config_sha256: str,
    prefix: str = "denoiser.",
    precision: Precision = FP32,
    reuse: Sequence[str] = (),
) -> Traced:
    """Exports `module(*example.values())` and reads its block structure off the graph.

    The module yields a prediction, or that and its unconditional half. With `reuse` it has a
    submodule REUSE_FILTER, which reads nothing but the inputs of these names, and yields last.
    `blocks` are module paths below `prefix`. Raises DipgoError for a block that has no operation
    of its own or runs more than once.
    """
    with torch.no_grad():
        program = torch.export.export(module, tuple(example.values()), strict=False)
    _drop_assertions(program.graph)
    fold_wide_constants(program)
    _drop_idle_squeezes(program.graph)
    inputs = dict(zip(program.graph_signature.user_inputs, example, strict=True))
    dependences = {placeholder: roles[name] for placeholder, name in inputs.items()}
    apply_precision(program, dependences, precision, prefix)
    gated = (*blocks, REUSE_FILTER) if reuse else tuple(blocks)
    parts = partition(program, inputs, dependences, gated, prefix)
    output, *unconditional = _outputs(program)[: -1 if reuse else None]
    given = {
        name: GraphInput(Value(name, tensor_type(tensor)), roles[name])
        for name, tensor in example.items()
    }
    graph = BlockGraph(
        model_class=model_class,
        config_sha256=config_sha256,
        inputs=tuple(one for name, one in given.items() if name not in reuse),
        nodes=tuple(
            _node(name, parts)
            for name in parts.members
            if PART not in name and name != REUSE_FILTER
        ),
        output=parts.names[output],
        unconditional=parts.names[unconditional[0]] if unconditional else None,
        reuse_filter=_reuse_filter(parts, [given[name].value for name in reuse]),
    )
    return Traced(graph, program, parts, prefix, precision)


def _reuse_filter(parts: Partition, inputs: Sequence[Value]) -> ReuseFilter | None:
    """`inputs` are the past and, last, the filters."""
    if not inputs:
        return None
    return ReuseFilter(_node(REUSE_FILTER, parts), tuple(inputs[:-1]), inputs[-1])


def _drop_assertions(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is assertion():
            graph.erase_node(node)


def _drop_idle_squeezes(graph: fx.Graph) -> None:
    """Those of an axis longer than 1, which torch lets through and ONNX refuses."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.squeeze.dim):
        source, axis = node.args
        if source.meta["val"].shape[axis] != 1:
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _outputs(program: torch.export.ExportedProgram) -> list[fx.Node]:
    (outputs,) = program.graph.output_node().args
    assert isinstance(outputs, tuple)
    found = [one for one in outputs if isinstance(one, fx.Node)]
    assert len(found) == len(outputs), "an output that is no tensor"
    return found


def _node(name: str, parts: Partition) -> Node:
    members = parts.members[name]
    macs = [node_macs(node, parts.constants) for node in members]
    return Node(
        name=name,
        kind="block" if name.split(PART)[0] in parts.blocks else "glue",
        inputs=parts.inputs[name],
        outputs=tuple(
            Value(output, tensor_type(parts.values[output].meta["val"]))
            for output in parts.outputs[name]
        ),
        dependence=parts.dependences[name],
        macs=sum(one.weights for one in macs),
        attention_macs=sum(one.attention for one in macs),
        parameters=parts.parameters[name],
        parts=tuple(_node(part, parts) for part in parts.parts.get(name, ())),
    )
