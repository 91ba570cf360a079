"""Lowering of a batched callee: one graph for every number of lanes that its calls have."""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir
import torch
from torch import fx

from dipgo.export.lower import lower
from dipgo.lanes import LanedModule
from dipgo.plan import Callee
from dipgo.torch_types import TORCH_DTYPES

EXAMPLE_WIDTH = 3
"""Lanes while exporting, where their number stays symbolic; 1 would be taken for a constant."""


def lower_lanes(module: fx.GraphModule, callee: Callee, widths: Set[int]) -> ir.Model:
    """The callee's module over lanes. Static if all calls are of one width."""
    stacked = [value.name in callee.stacked for value in callee.inputs]
    (width,) = widths if len(widths) == 1 else (EXAMPLE_WIDTH,)
    example = [
        torch.zeros(
            (width, *value.type.shape) if one else value.type.shape,
            dtype=TORCH_DTYPES[value.type.dtype],
        )
        for value, one in zip(callee.inputs, stacked, strict=True)
    ]
    lanes = torch.export.Dim("lanes") if len(widths) > 1 else None
    model = lower(
        LanedModule(module, stacked),
        example,
        name=callee.name,
        inputs=[value.name for value in callee.inputs],
        outputs=[value.name for value in callee.outputs],
        dynamic_shapes=(tuple({0: lanes} if one and lanes else {} for one in stacked),),
    )
    for value in list(model.graph.initializers.values()):
        assert value.name is not None
        value.name = value.name.removeprefix("module.")
    return model
