"""Replaces operators that take numbers only where the model gives them truth values.

PyTorch's `where` and `+` take truth values. ONNX Runtime has no `Where` of them, ONNX no `Add`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir


def replace_boolean_operators(model: ir.Model) -> None:
    """Replaces them by logical operators, in place."""
    for node in list(model.graph.all_nodes()):
        make = _REPLACEMENTS.get(node.op_type)
        operand = node.inputs[-1] if make else None  # constants have no inputs
        if make and operand is not None and operand.dtype == ir.DataType.BOOL:
            _replace(node, make(node))


def _replace(node: ir.Node, made: list[ir.Node]) -> None:
    graph, (result,), (value,) = node.graph, made[-1].outputs, node.outputs
    assert graph is not None, "a node of no graph"
    graph.insert_before(node, made)
    result.name, result.type, result.shape = value.name, value.type, value.shape
    ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _where(node: ir.Node) -> list[ir.Node]:
    """Returns nodes that compute `condition and chosen, or not condition and other`."""
    condition, chosen, other = node.inputs
    first = ir.node("And", [condition, chosen])
    inverse = ir.node("Not", [condition])
    second = ir.node("And", [inverse.outputs[0], other])
    return [first, inverse, second, ir.node("Or", [first.outputs[0], second.outputs[0]])]


def _add(node: ir.Node) -> list[ir.Node]:
    """Returns the node of a sum of truth values, which is true where one of them is."""
    return [ir.node("Or", node.inputs)]


_REPLACEMENTS: Mapping[str, Callable[[ir.Node], list[ir.Node]]] = {"Where": _where, "Add": _add}
