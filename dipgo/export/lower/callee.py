"""Makes callees into modules with example inputs, for any number of lanes or several sizes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.attributes import path_of
from dipgo.compiler.trace.dtypes import TORCH_DTYPES
from dipgo.compiler.trace.symbolic_sizes import SizedModule
from dipgo.compiler.trace.trace import Traced
from dipgo.compiler.trace.vectorize import LanedModule
from dipgo.export.lower.onnx import lower
from dipgo.ir.plan.nodes import Callee
from dipgo.ir.plan.plan import Plan
from dipgo.ir.types import Value

EXAMPLE_WIDTH = 3
"""Lanes while exporting, if their number stays symbolic; 1 would be taken for a constant."""


@dataclass(frozen=True)
class Lowering:
    """A module and the arguments with which `torch.export` captures it."""

    module: nn.Module
    example: Sequence[torch.Tensor]
    dynamic_shapes: Any
    """The symbolic sizes, in the form that `torch.export` takes; None if all shapes are static."""

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Returns the module's tensors by their names in the denoiser or part."""
        state = self.module.state_dict()
        return {self.path(name): tensor for name, tensor in state.items()}

    def path(self, name: str) -> str:
        """Returns the path, in the denoiser or part, of a tensor of this name in the module."""
        return path_of(name.removeprefix(self.prefix))

    @property
    def prefix(self) -> str:
        """Returns what a module around the traced one puts before these names."""
        return "" if isinstance(self.module, fx.GraphModule) else "module."


def callee_lowering(plan: Plan, traced: Traced, callee: Callee) -> Lowering:
    """Returns the module that computes a callee of the plan, ready to be lowered."""
    module = traced.module(
        callee.members or (callee.name,),
        [value.name for value in callee.inputs],
        [value.name for value in callee.outputs],
    )
    widths = {call.width for call in plan.calls if call.callee == callee.name}
    return lowering_of(module, callee, widths)


def lowering_of(module: fx.GraphModule, callee: Callee, widths: Set[int]) -> Lowering:
    """Returns the module over lanes, if the callee is batched; static if all `widths` are equal."""
    if not callee.stacked:
        return Lowering(module, _example(callee, ()), None)
    stacked = [value.name in callee.stacked for value in callee.inputs]
    (width,) = widths if len(widths) == 1 else (EXAMPLE_WIDTH,)
    lanes = torch.export.Dim("lanes") if len(widths) > 1 else None
    return Lowering(
        LanedModule(module, stacked),
        _example(callee, (width,)),
        (tuple({0: lanes} if batched and lanes else {} for batched in stacked),),
    )


def sized_lowering(lowerings: Sequence[Lowering]) -> Lowering:
    """Combines the lowerings of one callee or part in several sizes into one for all sizes.

    The example is the largest of those without an axis that differs and has one entry: that axis
    would be taken for a constant.

    Raises:
        DipgoError: The sizes cannot share a graph.
    """
    differing = [
        [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
        for shapes in zip(*map(_shapes, lowerings), strict=True)
    ]

    def rank(lowering: Lowering) -> tuple[int, int]:
        shapes = zip(_shapes(lowering), differing, strict=True)
        ones = sum(shape[axis] == 1 for shape, axes in shapes for axis in axes)
        return ones, -sum(map(torch.numel, lowering.example))

    lowerings = sorted(lowerings, key=rank)
    axes = [dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in differing]
    if not any(axes):
        return lowerings[0]
    if rank(lowerings[0])[0]:
        raise DipgoError(
            setting("also_sizes"),
            found="sizes each of which has an axis of 1 that is longer in another",
            expected="a size without such an axis: its shapes are the graph's example",
            remedy="give each picture more, or export each size by itself",
        )
    modules = [
        lowering.module for lowering in lowerings if isinstance(lowering.module, fx.GraphModule)
    ]
    assert len(modules) == len(lowerings), "lanes and sizes"
    return Lowering(SizedModule(modules), lowerings[0].example, (tuple(axes),))


def _shapes(lowering: Lowering) -> list[torch.Size]:
    return [tensor.shape for tensor in lowering.example]


def _example(callee: Callee, lanes: tuple[int, ...]) -> list[torch.Tensor]:
    return [
        torch.zeros(
            (*lanes, *value.type.shape) if value.name in callee.stacked else value.type.shape,
            dtype=TORCH_DTYPES[value.type.dtype],
        )
        for value in callee.inputs
    ]


def lower_as_onnx(
    lowering: Lowering, name: str, inputs: Sequence[Value], outputs: Sequence[Value]
) -> ir.Model:
    """Returns the lowering as a graph called `name`, with the plan's names for its values."""
    model = lower(
        lowering.module,
        lowering.example,
        name=name,
        inputs=[value.name for value in inputs],
        outputs=[value.name for value in outputs],
        dynamic_shapes=lowering.dynamic_shapes,
    )
    _check_dynamic(model, lowering)
    for value in list(model.graph.initializers.values()):
        assert value.name is not None
        value.name = lowering.path(value.name)
    _check_weights(model)
    return model


def _check_weights(model: ir.Model) -> None:
    """Refuses weights that the graph confuses with something else of the same name.

    `torch.onnx.export` calls the value of `norm.weight` `p_norm_weight`: another weight may be
    called that.
    """
    graph = model.graph
    values = {value.name for value in (*graph.inputs, *graph.outputs)}
    for name in graph.initializers:
        if name in values:
            raise DipgoError(
                f"weight {name}",
                found="the name of an input or output of the graph",
                expected="another name",
                remedy="rename it in the model",
            )
    known = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value.producer() is None and value not in known:
                raise DipgoError(
                    f"weight {value.name}",
                    found="a name that PyTorch gives to the value of another weight",
                    expected="another name",
                    remedy="rename it in the model",
                )


def _check_dynamic(model: ir.Model, lowering: Lowering) -> None:
    """Asserts that no axis that differs between sizes was fixed on the way."""
    for value, axes in zip(model.graph.inputs, (lowering.dynamic_shapes or ((),))[0], strict=False):
        for axis in (axis for axis, dim in axes.items() if dim is not None):
            assert value.shape is not None
            if isinstance(value.shape[axis], int):
                raise DipgoError(
                    f"graph {model.graph.name}, input {value.name}",
                    found=f"a graph that fixes axis {axis} at {value.shape[axis]}",
                    expected="one that takes several sizes",
                    remedy="export each size by itself, or leave batch_calls out of "
                    f"{setting('passes')}",
                )
