"""Weights out of an optimiser's sight: what it does to a graph then holds for any weights.

An optimiser of ONNX folds what is computed from initializers, makes one of two that are equal, and
leaves out a factor that is 1. Done with weights, that would be true of one set of them only, and a
graph could not be refitted.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import onnx_ir as ir

TRANSPOSED = ".transposed"
"""What the name of a weight [n, m] ends in that is stored as [m, n]."""


@contextmanager
def hidden_weights(model: ir.Model, weights: Container[str]) -> Iterator[None]:
    """While it lasts, the initializers of these names are inputs of the graph.

    Whole numbers stay: they are positions and the like, which no training changes.
    """
    graph = model.graph
    hidden = {
        name: value.const_value
        for name, value in graph.initializers.items()
        if name in weights and value.dtype is not None and value.dtype.is_floating_point()
    }
    for name in hidden:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    try:
        yield
    finally:
        for value in [value for value in graph.inputs if value.name in hidden]:
            graph.inputs.remove(value)
            value.const_value = hidden[str(value.name)]
            if value.uses():
                graph.initializers.add(value)


def store_transposed(model: ir.Model, weights: Container[str]) -> None:
    """Weights that are only ever read transposed, as those of linear layers, become so, in place.

    Else a runtime would make such a copy of each of them when it loads the graph.
    """
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        readers = [use.node for use in value.uses()]
        if name in weights and readers and all(map(_is_transpose, readers)):
            assert value.const_value is not None
            stored = _transposed(value)
            graph.initializers.add(stored)
            for node in readers:
                ir.convenience.replace_all_uses_with(node.outputs[0], stored)
                graph.remove(node, safe=True)
            graph.initializers.pop(name)


def _is_transpose(node: ir.Node) -> bool:
    """Of a matrix; and no output of the graph, which no initializer can be."""
    axes = node.attributes.get_ints("perm", None)
    swapped = node.op_type == "Transpose" and list(axes or ()) == [1, 0]
    return swapped and not node.outputs[0].is_graph_output()


def _transposed(value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    name = f"{value.name}{TRANSPOSED}"
    array = value.const_value.numpy()
    tensor = ir.tensor(array.T, name=name, dtype=value.const_value.dtype)
    return ir.Value(name=name, type=value.type, shape=ir.Shape(array.T.shape), const_value=tensor)
