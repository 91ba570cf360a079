"""Traces a denoiser into a BlockGraph, read off the graph that `torch.export` captures.

Every node of the exported graph says which module it ran in, so the blocks, the edges between
them, MACs and parameters need no model-specific code. docs/internals/design.md, stage 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import fx, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.attributes import attribute_of
from dipgo.compiler.trace.dtypes import tensor_type
from dipgo.compiler.trace.fold_constants import fold_wide_constants
from dipgo.compiler.trace.functional import make_functional, refuse_random_numbers
from dipgo.compiler.trace.macs import node_macs
from dipgo.compiler.trace.partition import Partition, partition
from dipgo.compiler.trace.patches import name_patches
from dipgo.compiler.trace.precision import FP32, Precision, apply_precision
from dipgo.compiler.trace.state import capture
from dipgo.compiler.trace.torch_private import assertion
from dipgo.ir.graph import GAP_FUNCTION, PART, BlockGraph, Dependence, GapFunction, GraphInput, Node
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
    """Tables that are no function of the timestep: by name, then by row of the SubNet."""

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers and constants by the name of their placeholder in the program.

        Each has the type that the graph gives it.
        """
        types = {
            node.name: node.meta["val"].dtype
            for node in self.program.graph.find_nodes(op="placeholder")
        }
        return {name: tensor.to(types[name]) for name, tensor in self.exact_tensors.items()}

    @cached_property
    def exact_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors as they were before `precision` was applied."""
        stored = {**self.program.constants, **self.program.state_dict}
        return {placeholder: stored[name] for placeholder, name in self._stored_names.items()}

    @cached_property
    def tensor_names(self) -> dict[str, str]:
        """The name in the denoiser's state dict of each placeholder's tensor."""
        return {key: name.removeprefix(self.prefix) for key, name in self._stored_names.items()}

    @cached_property
    def _stored_names(self) -> dict[str, str]:
        """The name in the program of each placeholder's tensor."""
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
        """Returns the part of the program that computes `outputs` from `inputs` with `members`.

        Args:
            members: Names of blocks, parts and pieces of glue, in topological order.
            inputs: Names of the values that are read.
            outputs: Names of the values that are returned.
            exact: Whether the weights are as they were before `precision` was applied.
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
                attribute = attribute_of(self.tensor_names[node.name])
                attributes[attribute] = tensors[node.name]
                copies[node] = graph.get_attr(attribute)
                if not exact:
                    copies[node].meta = {"val": node.meta["val"]}
            else:
                copies[node] = graph.node_copy(node, lambda source: copies[source])
        graph.output(tuple(copies[values[name]] for name in outputs))
        return fx.GraphModule(attributes, graph)

    def _with_constants(self, wanted: set[fx.Node]) -> Iterable[fx.Node]:
        """Yields `wanted`, and the parameters and constants that it needs, in topological order."""
        needed = set(wanted)
        for node in reversed(self.program.graph.nodes):
            if node in needed:
                constant = self.partition.constants
                needed.update(source for source in node.all_input_nodes if source in constant)
        return (node for node in self.program.graph.nodes if node in needed)


def _identifier(name: str, index: int) -> str:
    """Returns a different identifier for each index.

    `block:0` and `block~0` differ only in characters that identifiers may not hold.
    """
    return "".join(character if character.isalnum() else "_" for character in name) + f"_{index}"


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
    past: Sequence[str] = (),
) -> Traced:
    """Exports `module(*example.values())` and reads its block structure off the graph.

    Args:
        module: Yields a prediction, or a prediction and its unconditional half. With `past` it has
            a submodule GAP_FUNCTION, which reads only the inputs of these names, and whose
            prediction comes last.
        example: A tensor for each input, by name.
        roles: The dependence that each input brings in.
        blocks: Module paths below `prefix`.
        model_class: The denoiser's class, for the graph.
        config_sha256: The hash of the denoiser's config, for the graph.
        prefix: The path of the denoiser in `module`, with its dot.
        precision: The precision to apply to the exported graph.
        past: Names of the inputs of GAP_FUNCTION: past predictions and, last, the table's row.

    Raises:
        DipgoError: A block has no operation on the state, runs more than once, or has an input that
            is computed from its own output; the model keeps state between calls; or it fails.
    """
    with torch.no_grad(), _one_line_errors(model_class), name_patches(module, prefix):
        program = make_functional(capture(module, tuple(example.values()), prefix), prefix)
    refuse_random_numbers(program, prefix)
    _drop_assertions(program.graph)
    fold_wide_constants(program)
    _drop_idle_squeezes(program.graph)
    inputs = dict(zip(program.graph_signature.user_inputs, example, strict=True))
    dependences = {placeholder: roles[name] for placeholder, name in inputs.items()}
    apply_precision(program, dependences, precision, prefix)
    gated = (*blocks, GAP_FUNCTION) if past else tuple(blocks)
    parts = partition(program, inputs, dependences, gated, prefix)
    output, *unconditional = _outputs(program)[: -1 if past else None]
    graph_inputs = {
        name: GraphInput(Value(name, tensor_type(tensor)), roles[name])
        for name, tensor in example.items()
    }
    graph = BlockGraph(
        model_class=model_class,
        config_sha256=config_sha256,
        inputs=tuple(graph_input for name, graph_input in graph_inputs.items() if name not in past),
        nodes=tuple(
            _node(name, parts)
            for name in parts.members
            if PART not in name and name != GAP_FUNCTION
        ),
        output=parts.names[output],
        unconditional=parts.names[unconditional[0]] if unconditional else None,
        gap_function=_gap_function(parts, [graph_inputs[name].value for name in past]),
    )
    return Traced(graph, program, parts, prefix, precision)


@contextmanager
def _one_line_errors(model_class: str) -> Iterator[None]:
    """Turns what a user's model raises while it is captured into an error of one line.

    Raises:
        DipgoError: The model cannot be run with these inputs, or cannot be captured.
    """
    try:
        yield
    except (DipgoError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model may fail in any way
        first = (str(error).strip().splitlines() or [""])[0]
        raise DipgoError(
            f"model {model_class}",
            found=f"{type(error).__name__}: {first}",
            expected="a model that runs with the inputs of its pipeline, and that torch.export "
            "can capture",
            remedy="check its configuration; in Python the error's cause has the place",
        ) from error


def _gap_function(parts: Partition, inputs: Sequence[Value]) -> GapFunction | None:
    """Returns the node with its inputs: past predictions and, last, the table's row."""
    if not inputs:
        return None
    return GapFunction(_node(GAP_FUNCTION, parts), tuple(inputs[:-1]), inputs[-1])


def _drop_assertions(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is assertion():
            graph.erase_node(node)


def _drop_idle_squeezes(graph: fx.Graph) -> None:
    """Removes squeezes of axes longer than 1, which torch lets through and ONNX refuses."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.squeeze.dim):
        source, axis = node.args
        if source.meta["val"].shape[axis] != 1:
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _outputs(program: torch.export.ExportedProgram) -> list[fx.Node]:
    (outputs,) = program.graph.output_node().args
    assert isinstance(outputs, tuple)
    nodes = [output for output in outputs if isinstance(output, fx.Node)]
    assert len(nodes) == len(outputs), "an output that is no tensor"
    return nodes


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
        macs=sum(count.weights for count in macs),
        attention_macs=sum(count.attention for count in macs),
        parameters=parts.parameters[name],
        parts=tuple(_node(part, parts) for part in parts.parts.get(name, ())),
    )
