"""Hides constants that ONNX's optimiser takes for 0, 1 and the like, though they are only near.

Its rules compare numbers with a tolerance: a sum with 1e-9, which keeps a division from 0 / 0, is
left out as a sum with 0, a factor of 1.000004 as a factor of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

TAKEN_FOR = (0.0, 1.0, -1.0, 0.5, 1 / 6, 2.0, 3.0, 6.0)
"""Numbers in the optimiser's rules, with some that others may have."""

RELATIVE, ABSOLUTE = 2e-4, 2e-8
"""Twice the widest tolerances of the rules (onnxscript 0.7: 1e-4 and 1e-8)."""

MOST = 16
"""Elements of the largest constant that a rule compares with numbers."""


@contextmanager
def exact_constants(model: ir.Model) -> Iterator[None]:
    """Makes such constants inputs of the graph while the context lasts, then initializers."""
    graph = model.graph
    hidden = {}
    for node in list(graph):
        value = node.outputs[0]
        tensor = _constant(node)
        if tensor is not None and _is_near(tensor) and not value.is_graph_output():
            assert value.name is not None
            placeholder = ir.Value(name=value.name, type=value.type, shape=value.shape)
            ir.convenience.replace_all_uses_with(value, placeholder)
            graph.remove(node, safe=True)
            graph.inputs.append(placeholder)
            hidden[placeholder.name] = ir.tensor(tensor.numpy(), name=value.name)
    try:
        yield
    finally:
        for value in [value for value in graph.inputs if value.name in hidden]:
            graph.inputs.remove(value)
            value.const_value = hidden[value.name]
            if value.uses():
                graph.initializers.add(value)


def _constant(node: ir.Node) -> ir.TensorProtocol | None:
    if node.op_type != "Constant" or node.domain:
        return None
    return ir.convenience.get_const_tensor(node.outputs[0])


def _is_near(tensor: ir.TensorProtocol) -> bool:
    """Returns whether an element is near to one of TAKEN_FOR, and not that."""
    if not tensor.dtype.is_floating_point() or tensor.size > MOST:
        return False
    elements = tensor.numpy().astype(np.float64)
    return any(
        bool(((elements != number) & np.isclose(elements, number, RELATIVE, ABSOLUTE)).any())
        for number in np.asarray(TAKEN_FOR, tensor.numpy().dtype).astype(np.float64)
    )
