"""Compares every segment in its narrow type with fp32, on activations of a real trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import fx

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.oracle import Exact, Rounded, callee_functions, interpret
from dipgo.compiler.trace.dtypes import TORCH_DTYPES
from dipgo.compiler.trace.torch_private import module_stack
from dipgo.compiler.trace.trace import Traced
from dipgo.export.parts import Part
from dipgo.ir.plan.nodes import Call, Callee
from dipgo.ir.plan.plan import Plan

TOLERANCE = {"fp16": 5e-2, "bf16": 3e-1}
"""Largest relative L2 error of a segment's outputs.

Rounding stays below it, even times a guidance scale of 7.5.
"""

CALLS_CHECKED = 3
"""Calls checked of each segment, all lanes of each: the first, the last and one between."""

Tensors: TypeAlias = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Numerics:
    """The error of narrow types in a segment or part: the largest relative L2 of its calls."""

    error: float
    calls: int


def check_segments(
    plan: Plan,
    traced: Traced,
    inputs: Mapping[str, torch.Tensor],
) -> tuple[dict[str, Numerics], torch.Tensor]:
    """Runs the plan in fp32, and some calls of every segment in the plan's own types as well.

    Args:
        plan: The plan.
        traced: The graph that the plan's callees are parts of.
        inputs: The inputs of a run, of the plan's input types.

    Returns:
        The figures by segment, and the result of the fp32 run.

    Raises:
        DipgoError: A segment yields NaN, infinity or an error over TOLERANCE; the error names
            segment and module.
    """
    check = _Check(plan, traced)
    result = interpret(plan, traced, inputs, exact=True, on_call=check.compare)
    return check.figures, result


@torch.no_grad()
def check_part(part: Part, inputs: Tensors) -> tuple[Numerics, bool]:
    """Returns the figures of a graph around the plan, and whether its narrow type suffices."""
    exact, rounded = Exact(part.exact).run(*inputs), Rounded(part.module).run(*inputs)
    error = max(map(relative_error, rounded, exact))
    finite = all(bool(output.isfinite().all()) for output in rounded)
    return Numerics(error, 1), finite and error <= TOLERANCE[part.precision.name]


class _Check:
    """The figures so far, and the functions that are compared."""

    def __init__(self, plan: Plan, traced: Traced) -> None:
        self.plan, self.traced = plan, traced
        self.callees = {callee.name: callee for callee in plan.callees}
        self.chosen = {id(call) for name in self.callees for call in _some_calls(plan, name)}
        self.figures: dict[str, Numerics] = {}

    @cached_property
    def rounded(self) -> dict[str, Callable[..., Tensors]]:
        """By the callee's name, the function that computes one lane in the plan's own types."""
        return callee_functions(self.plan, self.traced)

    def compare(self, call: Call, operands: Tensors, exact: Tensors) -> None:
        """Adds one lane of a call to the figures, if the call is among those chosen."""
        if id(call) not in self.chosen:
            return
        callee = self.callees[call.callee]
        narrow = [
            operand.to(TORCH_DTYPES[value.type.dtype])
            for operand, value in zip(operands, callee.inputs, strict=True)
        ]
        results = self.rounded[callee.name](*narrow)
        for value, result, expected in zip(callee.outputs, results, exact, strict=True):
            error = relative_error(result, expected)
            if not result.isfinite().all() or error > TOLERANCE[self.traced.precision.name]:
                raise self._problem(call, value.name, error, narrow)
            before = self.figures.get(callee.name, Numerics(0.0, 0))
            self.figures[callee.name] = Numerics(max(before.error, error), before.calls)
        before = self.figures[callee.name]
        self.figures[callee.name] = Numerics(before.error, before.calls + 1)

    def _problem(self, call: Call, output: str, error: float, operands: Tensors) -> DipgoError:
        callee, name = self.callees[call.callee], self.traced.precision.name
        module = _first_overflow(callee, self.traced, operands)
        keep = module or next(
            (member for member in callee.members if "glue" not in member), "MODULE"
        )
        return DipgoError(
            f"segment {callee.name}, output {output}, step {call.step}",
            found=f"in {name} infinity or NaN, first in {module}"
            if module
            else f"in {name} a relative error of {error:.1e}",
            expected=f"finite numbers, at most {TOLERANCE[name]:.0e} from fp32",
            remedy=f"{setting('keep_fp32')} {keep}, "
            f"or {setting('precision')} {'bf16' if name == 'fp16' else 'fp32'}",
        )


def _some_calls(plan: Plan, name: str) -> Iterator[Call]:
    calls = [call for call in plan.calls if call.callee == name]
    count = min(CALLS_CHECKED, len(calls))
    for index in range(count):
        yield calls[index * (len(calls) - 1) // max(count - 1, 1)]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the relative L2 distance in float64, or the absolute if all expected values are 0."""
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).norm() / (expected.norm() or 1.0))


def _first_overflow(callee: Callee, traced: Traced, operands: Tensors) -> str | None:
    """Returns the path of the first module that yields a number that is not finite."""
    module = traced.module(
        callee.members or (callee.name,),
        [value.name for value in callee.inputs],
        [value.name for value in callee.outputs],
    )
    finder = _OverflowFinder(module)
    finder.run(*operands)
    return finder.path.removeprefix(traced.prefix) if finder.path else None


class _OverflowFinder(Rounded):
    """Remembers the module of the first node that yields infinity or NaN."""

    path: str | None = None

    def run_node(self, node: fx.Node) -> Any:
        """Runs the node as Rounded does, and notes its module if it is the first to overflow."""
        result = super().run_node(node)
        computed = node.op == "call_function" and isinstance(result, torch.Tensor)
        if computed and self.path is None and not result.isfinite().all():
            stack = module_stack(node)
            self.path = stack[-1][1].split("@")[0] if stack else ""
        return result
