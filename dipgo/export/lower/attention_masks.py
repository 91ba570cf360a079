"""Masks of attention: one that is the same for every query becomes one for each.

ONNX lets a mask's axes broadcast; ONNX Runtime's CPU provider wants that of the queries in full.
"""

from __future__ import annotations

import onnx_ir as ir

QUERY, MASK = 0, 3
"""Inputs of ONNX's `Attention` (opset 23)."""

RANK, QUERIES = 4, -2
"""Of both: [batch, heads, queries, width or keys]; and the axis of the queries."""


def expand_masks(model: ir.Model) -> None:
    """Expands every mask of one query, in place; sizes may be symbolic."""
    for node in list(model.graph.all_nodes()):
        mask = node.inputs[MASK] if len(node.inputs) > MASK else None
        if node.op_type == "Attention" and mask is not None:
            _expand_mask(model.graph, node, mask)


def _expand_mask(graph: ir.Graph, node: ir.Node, mask: ir.Value) -> None:
    query = node.inputs[QUERY]
    assert query is not None, "attention without a query"
    wanted, given = query.shape, mask.shape
    assert wanted is not None, "a query of no known shape"
    assert given is not None, "a mask of no known shape"
    if given[QUERIES] != 1 or wanted[QUERIES] == 1:
        return
    assert len(given) == len(wanted) == RANK, "attention without axes of batch and heads"
    ones = ir.node("Constant", [], {"value_ints": [1, 1]})
    one = ir.node("Constant", [], {"value_ints": [1]})
    queries = ir.node("Shape", [query], {"start": RANK + QUERIES, "end": RANK + QUERIES + 1})
    size = ir.node("Concat", [made.outputs[0] for made in (ones, queries, one)], {"axis": 0})
    result = ir.node("Expand", [mask, size.outputs[0]])
    graph.insert_before(node, [ones, one, queries, size, result])
    (value,) = result.outputs
    value.type, value.shape = mask.type, ir.Shape([*given[:QUERIES], wanted[QUERIES], given[-1]])
    node.replace_input_with(MASK, value)
