"""Decomposes the newest operators for runtimes that know only older ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting


def decompose(model: ir.Model) -> None:
    """Replaces every `Attention` and `GroupNormalization`, in the same types; weights stay.

    Raises:
        DipgoError: An Attention has more than query, key, value and mask, the inputs of torch's
            `scaled_dot_product_attention`.
    """
    takes_apart = {"Attention": _attention, "GroupNormalization": _group_normalization}
    for node in list(model.graph.all_nodes()):
        if node.domain == "" and node.op_type in takes_apart:
            parts = _Parts(model.graph, node)
            takes_apart[node.op_type](parts, node)
            parts.replace()


def _attention(parts: _Parts, node: ir.Node) -> None:
    """Computes softmax(scale Q Kᵀ + mask) V.

    Queries are scaled, as they are fewer than products. OpenVINO recognises attention in this form
    and runs it fused: the products are never all in memory.
    """
    query, key, value = (_present(operand) for operand in node.inputs[:3])
    _check_attention(parts.where, node, (query, key, value))
    scale = node.attributes.get_float("scale", 1 / math.sqrt(_width(query)))
    scaled = parts.apply("Mul", query, parts.number("scale", scale, query))
    shown = parts.apply("MatMul", scaled, parts.apply("Transpose", key, perm=[0, 1, 3, 2]))
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is not None and mask.dtype == ir.DataType.BOOL:  # true is what may be seen
        lowest = float(query.dtype.min) if query.dtype else 0.0
        shown = parts.apply("Where", mask, shown, parts.number("hidden", lowest, query))
    elif mask is not None:
        shown = parts.apply("Add", shown, mask)
    parts.apply("MatMul", parts.apply("Softmax", shown, axis=-1), value)


def _width(query: ir.Value) -> int:
    """Returns the width of a head."""
    width = _shape(query)[3]
    assert isinstance(width, int), "a head of no fixed width"
    return width


def _check_attention(where: str, node: ir.Node, operands: Sequence[ir.Value]) -> None:
    shapes = [_shape(operand) for operand in operands]
    plain = all(len(shape) == 4 and shape[1] == shapes[0][1] for shape in shapes)
    more = [key for key, entry in node.attributes.items() if key != "scale" and entry.value]
    more += [str(operand.name) for operand in node.inputs[4:] if operand is not None]
    more += [str(output.name) for output in node.outputs[1:] if output.uses()]
    if more or not plain:
        raise DipgoError(
            where,
            found=f"Attention of {', '.join(map(str, shapes))} with {', '.join(more) or 'a mask'}",
            expected="[batch, heads, length, width] with as many heads each, and at most a mask",
            remedy=f"export with {setting('target')} onnxruntime, which takes Attention as it is",
        )


def _group_normalization(parts: _Parts, node: ir.Node) -> None:
    """Normalises groups as channels of an InstanceNormalization, then applies scale and bias."""
    data, scale, bias = (_present(operand) for operand in node.inputs)
    groups = node.attributes["num_groups"].as_int()
    grouped = parts.apply("Reshape", data, parts.integers("groups", [0, groups, -1]))
    ones = parts.numbers("ones", np.ones(groups), data)
    zeros = parts.numbers("zeros", np.zeros(groups), data)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    normal = parts.apply("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    normal = parts.apply("Reshape", normal, parts.shape_of(data))
    each = parts.integers("each", [-1] + [1] * (len(_shape(data)) - 2))
    scaled = parts.apply("Mul", normal, parts.apply("Reshape", scale, each))
    parts.apply("Add", scaled, parts.apply("Reshape", bias, each))


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None, "an input that the operator must have"
    return value


def _shape(value: ir.Value) -> ir.Shape:
    assert value.shape is not None, f"{value.name}: torch's exporter reports every shape"
    return value.shape


class _Parts:
    """The nodes that replace one node; values are named after its result."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph, self._node, self._nodes = graph, node, list[ir.Node]()
        self.where = f"graph {graph.name}, node {node.name}"

    def apply(
        self, operator: str, *operands: ir.Value, **attributes: float | Sequence[int]
    ) -> ir.Value:
        """Adds a node and returns its result."""
        self._nodes.append(ir.node(operator, operands, attributes))
        value = self._nodes[-1].outputs[0]
        value.name = self._name(f"{operator.lower()}_{len(self._nodes)}")
        return value

    def number(self, what: str, number: float, like: ir.Value) -> ir.Value:
        """Returns a scalar of the element type of `like`."""
        return self.numbers(what, np.array(number), like)

    def numbers(self, what: str, numbers: NDArray[Any], like: ir.Value) -> ir.Value:
        """Returns a constant of the element type of `like`."""
        assert like.dtype is not None
        return self._constant(what, numbers.astype(like.dtype.numpy()))

    def integers(self, what: str, numbers: Sequence[int]) -> ir.Value:
        """Returns a constant i64[n]."""
        return self._constant(what, np.array(numbers, np.int64))

    def shape_of(self, value: ir.Value) -> ir.Value:
        """Returns i64[axes]: a constant, or computed if sizes differ between runs."""
        shape = _shape(value)
        if shape.is_static():
            return self.integers("shape", shape.numpy())
        return self.apply("Shape", value)

    def replace(self) -> None:
        """Puts the parts in the node's place; the last part yields its result."""
        old, new = self._node.outputs[0], self._nodes[-1].outputs[0]
        new.type, new.shape, new.name = old.type, old.shape, old.name
        ir.convenience.replace_nodes_and_values(
            self._graph, self._node, [self._node], self._nodes, [old], [new]
        )

    def _constant(self, what: str, array: NDArray[Any]) -> ir.Value:
        """Adds a small initializer to the graph; weights go into the file that all graphs share."""
        tensor = ir.tensor(array, name=self._name(what))
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value

    def _name(self, what: str) -> str:
        return f"{self._node.outputs[0].name}_{what}"
