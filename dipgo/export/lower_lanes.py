"""Callees as modules with example inputs; a batched one is one module for every number of lanes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn

from dipgo.export.lower import lower
from dipgo.lanes import LanedModule
from dipgo.plan import Callee, Plan
from dipgo.torch_types import TORCH_DTYPES
from dipgo.trace import Traced

EXAMPLE_WIDTH = 3
"""Lanes while exporting, where their number stays symbolic; 1 would be taken for a constant."""


@dataclass(frozen=True)
class Lowering:
    """A module with what `torch.export` needs to capture it."""

    module: nn.Module
    example: Sequence[torch.Tensor]
    dynamic_shapes: Any
    """As `torch.export` takes it; None where all shapes are static."""


def callee_lowering(plan: Plan, traced: Traced, callee: Callee) -> Lowering:
    """What computes a callee of the plan."""
    module = traced.module(
        callee.members or (callee.name,),
        [value.name for value in callee.inputs],
        [value.name for value in callee.outputs],
    )
    widths = {call.width for call in plan.calls if call.callee == callee.name}
    return lowering_of(module, callee, widths)


def lowering_of(module: fx.GraphModule, callee: Callee, widths: Set[int]) -> Lowering:
    """The module over lanes, if the callee is batched. Static if all `widths` are one."""
    if not callee.stacked:
        return Lowering(module, _example(callee, ()), None)
    stacked = [value.name in callee.stacked for value in callee.inputs]
    (width,) = widths if len(widths) == 1 else (EXAMPLE_WIDTH,)
    lanes = torch.export.Dim("lanes") if len(widths) > 1 else None
    return Lowering(
        LanedModule(module, stacked),
        _example(callee, (width,)),
        (tuple({0: lanes} if one and lanes else {} for one in stacked),),
    )


def _example(callee: Callee, lanes: tuple[int, ...]) -> list[torch.Tensor]:
    return [
        torch.zeros(
            (*lanes, *value.type.shape) if value.name in callee.stacked else value.type.shape,
            dtype=TORCH_DTYPES[value.type.dtype],
        )
        for value in callee.inputs
    ]


def lower_callee(lowering: Lowering, callee: Callee) -> tuple[ir.Model, dict[str, torch.Tensor]]:
    """The callee as ONNX, with the plan's names for inputs and outputs; and its weights by name."""
    model = lower(
        lowering.module,
        lowering.example,
        name=callee.name,
        inputs=[value.name for value in callee.inputs],
        outputs=[value.name for value in callee.outputs],
        dynamic_shapes=lowering.dynamic_shapes,
    )
    for value in list(model.graph.initializers.values()):
        assert value.name is not None
        if callee.stacked:
            value.name = value.name.removeprefix("module.")
    own = lowering.module.state_dict()
    return model, {name.removeprefix("module."): tensor for name, tensor in own.items()}
