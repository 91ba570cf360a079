"""The oracle: an eager interpreter of plans, with which every other path is compared."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import fx

from dipgo.compiler.trace.torch_private import tree_map
from dipgo.compiler.trace.trace import Traced
from dipgo.ir.graph import Dependence
from dipgo.ir.plan.nodes import Call, Combine, Leaf, Operand, Stack, Table, TableRow
from dipgo.ir.plan.plan import Plan

NARROW = (torch.float16, torch.bfloat16)


class Rounded(fx.Interpreter):
    """An interpreter in which every operator sums in fp32 and rounds to the type of its result."""

    def run_node(self, node: fx.Node) -> Any:
        """Widens narrow operands, computes, and rounds to the type in the node's metadata."""
        if node.op != "call_function" or not _is_narrow(node):
            return super().run_node(node)
        assert callable(node.target)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        result, expected = node.target(*_widened(args), **_widened(kwargs)), node.meta["val"]
        if isinstance(result, torch.Tensor):
            return result.to(expected.dtype)
        return [tensor.to(meta.dtype) for tensor, meta in zip(result, expected, strict=True)]


class Exact(fx.Interpreter):
    """An interpreter in fp32 throughout, as if no precision had been applied."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Computes in fp32; conversions to a narrow type leave their operand as it is."""
        return target(*_widened(args), **_widened(kwargs))


def _is_narrow(node: fx.Node) -> bool:
    """Returns whether a node reads or yields narrow numbers; list elements pass as they are."""
    if node.target is operator.getitem:
        return False
    values = [neighbour.meta.get("val") for neighbour in (node, *node.all_input_nodes)]
    return any(isinstance(value, torch.Tensor) and value.dtype in NARROW for value in values)


def _widened(arguments: Any) -> Any:
    return tree_map(_widen, arguments)


def _widen(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor) and argument.dtype in NARROW:
        return argument.float()
    return torch.float32 if argument in NARROW else argument


@torch.no_grad()
def fill_tables(plan: Plan, traced: Traced) -> dict[str, torch.Tensor]:
    """Returns the rows of every table of the plan, stacked.

    Returns:
        By table name a tensor `[len(table.rows), *table.type.shape]`.
    """
    timesteps = {step.row: step.timestep for step in plan.steps}
    return {table.name: _fill(table, timesteps, traced) for table in plan.tables}


def _fill(table: Table, timesteps: dict[int, float], traced: Traced) -> torch.Tensor:
    if table.name in traced.given_tables:
        return torch.stack([traced.given_tables[table.name][row] for row in table.rows])
    timestep = traced.graph.timestep.name
    inputs = [torch.tensor(timesteps[row]) for row in table.rows]
    if table.name == timestep:
        return torch.stack(inputs)
    nodes = [n.name for n in traced.graph.nodes if n.dependence == Dependence.TIMESTEP]
    compute = traced.module(nodes, [timestep], [table.name])
    return torch.stack([compute(timestep_value)[0] for timestep_value in inputs])


OnCall: TypeAlias = Callable[[Call, Sequence[torch.Tensor], Sequence[torch.Tensor]], object]
"""A function called after every lane of every call, with what it read and what it yielded."""


@torch.no_grad()
def interpret(
    plan: Plan,
    traced: Traced,
    inputs: Mapping[str, torch.Tensor],
    *,
    exact: bool = False,
    on_call: OnCall = lambda call, operands, results: None,
) -> torch.Tensor:
    """Runs the plan, before or after segmenting, on torch tensors.

    Args:
        plan: The plan to run.
        traced: The graph that the plan's callees are parts of.
        inputs: A tensor of the plan's input type for each input.
        exact: Whether to run in fp32 whatever the plan's precision.
        on_call: Called after every lane of every call.

    Returns:
        The plan's result.
    """
    modules = callee_functions(plan, traced, exact=exact)
    tables = fill_tables(plan, traced)
    rows = {table.name: table.rows for table in plan.tables}
    last_read = {name: position for position, s in enumerate(plan.statements) for name in s.reads}
    values = dict(inputs)

    def fetch(leaf: Leaf) -> torch.Tensor:
        if isinstance(leaf, TableRow):
            return tables[leaf.table][rows[leaf.table].index(leaf.row)]
        return values[leaf.name]

    for position, statement in enumerate(plan.statements):
        if isinstance(statement, Combine):
            values[statement.result] = combine(statement, values)
        else:
            for lane in range(statement.width):
                operands = [fetch(_of_lane(operand, lane)) for operand in statement.operands]
                results = modules[statement.callee](*operands)
                on_call(statement, operands, results)
                names = (lanes[lane] for lanes in statement.outputs)
                values.update(zip(names, results, strict=True))
        for name in statement.reads:
            if last_read[name] == position and name != plan.result:
                values.pop(name, None)
    return values[plan.result]


def _of_lane(operand: Operand, lane: int) -> Leaf:
    """Returns the operand of one lane: the oracle runs the lanes of a batch one by one."""
    return operand.lanes[lane] if isinstance(operand, Stack) else operand


def combine(statement: Combine, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the linear combination, added up in order; a sum of narrow terms is rounded once."""
    (first, name), *rest = statement.terms
    dtype = values[name].dtype
    total = _wide(values[name]) * first
    for coefficient, other in rest:
        total = total + _wide(values[other]) * coefficient
    return total.to(dtype)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in NARROW else tensor


def callee_functions(
    plan: Plan, traced: Traced, *, exact: bool = False
) -> dict[str, Callable[..., Sequence[torch.Tensor]]]:
    """Returns, by the callee's name, a function that computes one lane of a call."""
    return {
        callee.name: (Exact if exact else Rounded)(
            traced.module(
                callee.members or (callee.name,),
                [value.name for value in callee.inputs],
                [value.name for value in callee.outputs],
                exact=exact,
            )
        ).run
        for callee in plan.callees
    }
