"""Counts the MACs of a node of an exported graph, by PyTorch's own FLOP formulas."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten

_CONVOLUTIONS = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.convolution.default,
}
"""Operators whose filters count as weights, wherever they come from."""

_MULTIPLIES = {
    *_CONVOLUTIONS,
    _aten.linear.default,
    _aten.matmul.default,
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten.scaled_dot_product_attention.default,
}


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates with weights, and of activations with activations (attention)."""

    weights: int = 0
    attention: int = 0


def node_macs(node: fx.Node, constants: Set[fx.Node]) -> Macs:
    """Returns the MACs of a node, from the shapes in its metadata; nothing is computed.

    Args:
        node: A node of an exported graph.
        constants: The nodes that are weights or made of weights.
    """
    if node.target not in _MULTIPLIES:
        return Macs()
    assert callable(node.target)
    arguments = fx.map_arg((node.args, node.kwargs), _on_meta)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        node.target(*arguments[0], **arguments[1])
    macs = int(counter.get_total_flops()) // 2
    of_constants = any(source in constants for source in node.all_input_nodes)
    has_weights = of_constants or node.target in _CONVOLUTIONS
    return Macs(weights=macs) if has_weights else Macs(attention=macs)


def _on_meta(source: fx.Node) -> torch.Tensor:
    """Returns an empty tensor on the meta device.

    There, attention is made of products that the formulas know.
    """
    value = source.meta["val"]
    return torch.empty(value.shape, dtype=value.dtype, device="meta")
