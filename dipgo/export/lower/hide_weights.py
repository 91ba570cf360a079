"""Hides weights from ONNX's optimiser, so that its result holds for any weights.

The optimiser folds what is computed from initializers, merges equal initializers, and leaves out
factors of 1. Done with weights, the result would hold for these weights only, and the graph could
not be refitted.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import onnx_ir as ir

TRANSPOSED = ".transposed"
"""Suffix of the name of a weight [n, m] that is stored as [m, n]."""


@contextmanager
def hidden_weights(model: ir.Model, weights: Container[str]) -> Iterator[None]:
    """Makes the initializers of these names inputs of the graph while the context lasts.

    Integer initializers stay: they are positions and the like, which no training changes.
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
    """Transposes, in place, weights that are only read transposed, as linear layers read theirs.

    Otherwise a runtime would make such a copy of each of them when it loads the graph.
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
    """Returns whether the node transposes a matrix and yields no graph output.

    A graph output cannot be an initializer.
    """
    axes = node.attributes.get_ints("perm", None)
    swapped = node.op_type == "Transpose" and list(axes or ()) == [1, 0]
    return swapped and not node.outputs[0].is_graph_output()


def _transposed(value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    name = f"{value.name}{TRANSPOSED}"
    array = value.const_value.numpy()
    tensor = ir.tensor(array.T, name=name, dtype=value.const_value.dtype)
    return ir.Value(name=name, type=value.type, shape=ir.Shape(array.T.shape), const_value=tensor)
