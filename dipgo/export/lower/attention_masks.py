"""Expands attention masks that all queries share to one row for each query.

ONNX lets a mask's axes broadcast; ONNX Runtime's CPU provider needs the axis of the queries in
full.
"""

from __future__ import annotations

import onnx_ir as ir

QUERY, MASK = 0, 3
"""Positions of the inputs in ONNX's `Attention` (opset 23)."""

RANK, QUERIES = 4, -2
"""Rank of query and mask, [batch, heads, queries, width or keys], and the axis of the queries."""


def expand_masks(model: ir.Model) -> None:
    """Expands every mask with a single row of queries, in place; sizes may be symbolic."""
    for node in list(model.graph.all_nodes()):
        mask = node.inputs[MASK] if len(node.inputs) > MASK else None
        if node.op_type == "Attention" and mask is not None:
            _expand_mask(model.graph, node, mask)


def _expand_mask(graph: ir.Graph, node: ir.Node, mask: ir.Value) -> None:
    query = node.inputs[QUERY]
    assert query is not None, "attention without a query"
    wanted, shape = query.shape, mask.shape
    assert wanted is not None, "a query of no known shape"
    assert shape is not None, "a mask of no known shape"
    if shape[QUERIES] != 1 or wanted[QUERIES] == 1:
        return
    assert len(shape) == len(wanted) == RANK, "attention without axes of batch and heads"
    ones = ir.node("Constant", [], {"value_ints": [1, 1]})
    unit = ir.node("Constant", [], {"value_ints": [1]})
    queries = ir.node("Shape", [query], {"start": RANK + QUERIES, "end": RANK + QUERIES + 1})
    size = ir.node("Concat", [made.outputs[0] for made in (ones, queries, unit)], {"axis": 0})
    result = ir.node("Expand", [mask, size.outputs[0]])
    graph.insert_before(node, [ones, unit, queries, size, result])
    (value,) = result.outputs
    value.type, value.shape = mask.type, ir.Shape([*shape[:QUERIES], wanted[QUERIES], shape[-1]])
    node.replace_input_with(MASK, value)
