"""Partitions an exported graph into blocks and glue.

A node that ran inside a block's module and depends on the state belongs to the block; a constant
belongs to whatever reads it; every other node is glue. Nodes that depend on the timestep or the
prompt alone are glue even inside a block: no gate decides about them, and they need not be in the
denoising loop. Glue nodes form one piece if the same blocks lie before them and they have the same
dependence. Both only grow along an edge, so the pieces and the blocks have no cycle among them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile
from math import prod
from typing import TypeAlias

import torch
from torch import fx

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.torch_private import module_stack
from dipgo.ir.graph import PART, Dependence

Home: TypeAlias = str | tuple[int, Dependence]
"""A block's name; or for a piece of glue the blocks before it (a bit each) and its dependence."""

UNCONDITIONAL = "unconditional"
"""The name of the program's second output, if it has one."""

_INPUT_ONLY = {
    Dependence.TIMESTEP: "timestep",
    Dependence.PROMPT: "prompt",
    Dependence.TIMESTEP | Dependence.PROMPT: "prompt_timestep",
}
"""The names of the pieces that do not depend on the state: one for each dependence."""


@dataclass
class Partition:
    """The nodes of each block and piece of glue, and the values that pass between them."""

    blocks: tuple[str, ...]
    constants: set[fx.Node] = field(default_factory=set)
    members: dict[str, list[fx.Node]] = field(default_factory=dict)
    dependences: dict[str, Dependence] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, fx.Node] = field(default_factory=dict)
    names: dict[fx.Node, str] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each block with several outputs its parts, if any; they too have members and values."""


def partition(
    program: torch.export.ExportedProgram,
    inputs: Mapping[str, str],
    roles: Mapping[str, Dependence],
    blocks: Sequence[str],
    prefix: str,
) -> Partition:
    """Partitions the program's graph.

    Args:
        program: The exported denoiser.
        inputs: The input's own name for each placeholder of an input.
        roles: The dependence of each placeholder of an input.
        blocks: Module paths below `prefix`.
        prefix: The path of the denoiser in the exported module, with its dot.

    Raises:
        DipgoError: A block runs more than once, computes nothing from the state, or has an input
            that is computed from its own output.
    """
    dependence = _dependences(program.graph, roles)
    result = Partition(tuple(blocks))
    result.constants = {node for node, depends_on in dependence.items() if not depends_on}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            _name_value(result, inputs[node.name], node)
    computed = [
        node
        for node in program.graph.nodes
        if node.op == "call_function" and node not in result.constants
    ]
    owner = _owners(computed, blocks, prefix, dependence)
    _collect(result, computed, owner, dependence)
    _check_all_present(result)
    output = program.graph.output_node()
    of_glue = [node for node in output.all_input_nodes if owner.get(node) not in result.blocks]
    for node in of_glue[1:]:
        _name_value(result, UNCONDITIONAL, node)
    _connect(result, result.members, owner, output)
    _split_blocks(result, owner, output)
    _count_parameters(result, set(program.graph_signature.inputs_to_lifted_tensor_constants))
    return result


def _dependences(graph: fx.Graph, roles: Mapping[str, Dependence]) -> dict[fx.Node, Dependence]:
    dependence: dict[fx.Node, Dependence] = {}
    for node in graph.nodes:
        combined = roles.get(node.name, Dependence.CONSTANT)
        for source in node.all_input_nodes:
            combined |= dependence[source]
        dependence[node] = combined
    return dependence


def _owners(
    computed: list[fx.Node],
    blocks: Sequence[str],
    prefix: str,
    dependence: Mapping[fx.Node, Dependence],
) -> dict[fx.Node, str]:
    """Returns the block or piece of glue of every node."""
    bit: dict[Home, int] = {block: 1 << index for index, block in enumerate(blocks)}
    before: dict[fx.Node, int] = {}
    home: dict[fx.Node, Home] = {}
    calls: dict[str, str] = {}
    for node in computed:
        if node.target is operator.getitem:
            # An element of a list belongs where the list is made: lists do not cross edges.
            (made,) = node.all_input_nodes
            before[node], home[node] = before[made], home[made]
            continue
        before[node] = 0
        for source in (source for source in node.all_input_nodes if source in before):
            before[node] |= before[source] | bit.get(home[source], 0)
        block = _block_of(node, blocks, prefix, calls)
        if Dependence.STATE not in dependence[node]:
            block = None
        home[node] = block or (before[node], dependence[node])
        if block and any(
            home[source] != block and before[source] & bit[block]
            for source in node.all_input_nodes
            if source in before
        ):
            raise _not_convex(block)
    names = _name_pieces(home, prefix)
    return {node: names.get(place, str(place)) for node, place in home.items()}


def _block_of(
    node: fx.Node, blocks: Sequence[str], prefix: str, calls: dict[str, str]
) -> str | None:
    """Returns the block whose module the node ran in.

    Raises:
        DipgoError: The module runs a second time.
    """
    for key, path in module_stack(node):
        block = path.split("@")[0].removeprefix(prefix)
        if block in blocks:
            if calls.setdefault(block, key) != key:
                raise DipgoError(
                    f"block {block}",
                    found="a module that runs more than once in an evaluation",
                    expected="one run",
                    remedy="choose a block around it, or one inside it",
                )
            return block
    return None


def _not_convex(block: str) -> DipgoError:
    return DipgoError(
        f"block {block}",
        found="an input that is computed from its own output",
        expected="a block whose inputs are known before it starts",
        remedy="choose a block around it, or one inside it",
    )


def _name_pieces(home: Mapping[fx.Node, Home], prefix: str) -> dict[Home, str]:
    """Names each piece after what it depends on, or after the module that its nodes ran in."""
    pieces: dict[tuple[int, Dependence], list[fx.Node]] = {}
    for node, place in home.items():
        if not isinstance(place, str):
            pieces.setdefault(place, []).append(node)
    named: dict[str, Home] = {}
    for place, nodes in pieces.items():
        base = f"glue.{_INPUT_ONLY.get(place[1]) or _shared_module(nodes, prefix)}"
        name, count = base, 1
        while name in named:
            count += 1
            name = f"{base}.{count}"
        named[name] = place
    return {place: name for name, place in named.items()}


def _shared_module(nodes: Sequence[fx.Node], prefix: str) -> str:
    """Returns the innermost module that the nodes share, or else that of the first node.

    Nodes that read weights decide, if there are any.
    """
    weighted = [node for node in nodes if "weight" in str(node.all_input_nodes)]
    paths = [_innermost(node).removeprefix(prefix).split(".") for node in weighted or nodes]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join([parts[0] for parts in shared] or paths[0]) or "denoiser"


def _innermost(node: fx.Node) -> str:
    stack = module_stack(node)
    return stack[-1][1].split("@")[0] if stack else ""


def _collect(
    result: Partition,
    computed: list[fx.Node],
    owner: Mapping[fx.Node, str],
    dependence: Mapping[fx.Node, Dependence],
) -> None:
    """Fills members and dependences, in topological order."""
    members: dict[str, list[fx.Node]] = {}
    for node in computed:
        members.setdefault(owner[node], []).append(node)
    for name in _topological(members, owner):
        result.members[name] = members[name]
        combined = Dependence.CONSTANT
        for node in members[name]:
            combined |= dependence[node]
        result.dependences[name] = combined


def _topological(
    members: Mapping[str, Sequence[fx.Node]], owner: Mapping[fx.Node, str]
) -> list[str]:
    sources = {
        name: {owner[s] for node in nodes for s in node.all_input_nodes if s in owner} - {name}
        for name, nodes in members.items()
    }
    ordered: list[str] = []
    while len(ordered) < len(members):
        done = set(ordered)
        ordered.append(next(n for n in members if n not in done and sources[n] <= done))
    return ordered


def _check_all_present(result: Partition) -> None:
    for block in result.blocks:
        if block not in result.members:
            raise DipgoError(
                f"block {block}",
                found="a module that computes nothing from the state",
                expected="a module with operations that depend on the state",
                remedy="leave it out of the blocks",
            )


def _connect(
    result: Partition,
    members: Mapping[str, Sequence[fx.Node]],
    owner: Mapping[fx.Node, str],
    output: fx.Node,
) -> None:
    """Names the values that leave each of `members`, and lists the values that each reads."""
    for name, nodes in members.items():
        leaving = [
            node
            for node in nodes
            if any(user is output or owner.get(user, name) != name for user in node.users)
        ]
        numbered = [node for node in leaving if result.names.get(node) != UNCONDITIONAL]
        for index, node in enumerate(numbered):
            if node not in result.names:
                _name_value(result, name if len(numbered) == 1 else f"{name}:{index}", node)
        result.outputs[name] = tuple(result.names[node] for node in leaving)
    for name, nodes in members.items():
        inside = set(nodes)
        read = (source for node in nodes for source in node.all_input_nodes)
        outside = (source for source in read if source not in inside | result.constants)
        result.inputs[name] = tuple(dict.fromkeys(result.names[source] for source in outside))


def _split_blocks(result: Partition, owner: Mapping[fx.Node, str], output: fx.Node) -> None:
    """Finds the parts of every block with several outputs."""
    for block in result.blocks:
        pieces = _by_outputs(result, block)
        if len(pieces) < 2:
            continue
        members = {f"{block}{PART}{index}": nodes for index, nodes in enumerate(pieces)}
        owner_of_part = {node: name for name, nodes in members.items() for node in nodes}
        _connect(result, members, {**owner, **owner_of_part}, output)
        result.parts[block] = tuple(members)
        for name, nodes in members.items():
            result.members[name] = nodes
            result.dependences[name] = result.dependences[block]


def _by_outputs(result: Partition, block: str) -> list[list[fx.Node]]:
    """Groups the block's nodes by the outputs that need them, the most needed group first.

    A node's readers are needed for no more outputs than the node itself, so this order is
    topological. Nodes that no output needs are left out.
    """
    outputs = [result.values[name] for name in result.outputs[block]]
    needed_for = dict.fromkeys(result.members[block], 0)
    needed_for |= {node: 1 << index for index, node in enumerate(outputs)}
    for node in reversed(result.members[block]):
        for user in node.users:
            needed_for[node] |= needed_for.get(user, 0)
    pieces: dict[int, list[fx.Node]] = {}
    for node in result.members[block]:
        # An element of a list stays where the list is made: lists do not cross edges.
        made = node.all_input_nodes[0] if node.target is operator.getitem else node
        if needed_for[made]:
            pieces.setdefault(needed_for[made], []).append(node)
    return [pieces[outputs] for outputs in sorted(pieces, key=int.bit_count, reverse=True)]


def _name_value(result: Partition, name: str, node: fx.Node) -> None:
    result.values[name], result.names[node] = node, name


def _count_parameters(result: Partition, no_parameters: Set[str]) -> None:
    """Counts the parameters that each piece reads.

    Tensors in `no_parameters`, which are known without weights, do not count.
    """
    for name, nodes in result.members.items():
        read = {source for node in nodes for source in node.all_input_nodes}
        constants = (
            source for source in read if source.op == "placeholder" and source in result.constants
        )
        weights = (constant for constant in constants if constant.name not in no_parameters)
        result.parameters[name] = sum(prod(weight.meta["val"].shape) for weight in weights)
