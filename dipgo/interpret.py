"""The oracle: an eager interpreter of plans, with which every other path is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from dipgo.arithmetic import NARROW, Exact, Rounded
from dipgo.plan import Call, Combine, Leaf, Operand, Plan, Stack, TableRow, reads
from dipgo.tables import fill_tables
from dipgo.trace import Traced

OnCall: TypeAlias = Callable[[Call, Sequence[torch.Tensor], Sequence[torch.Tensor]], object]
"""Called after every lane of every call, with what it read and what it yielded."""


@torch.no_grad()
def interpret(
    plan: Plan,
    traced: Traced,
    inputs: Mapping[str, torch.Tensor],
    *,
    exact: bool = False,
    on_call: OnCall = lambda call, operands, results: None,
) -> torch.Tensor:
    """Runs the plan, before or after segmenting, on torch tensors of the plan's input types.

    With `exact`, in fp32 whatever the plan's precision.
    """
    modules = callee_functions(plan, traced, exact=exact)
    tables = fill_tables(plan, traced)
    rows = {table.name: table.rows for table in plan.tables}
    last_read = {name: position for position, s in enumerate(plan.statements) for name in reads(s)}
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
        for name in reads(statement):
            if last_read[name] == position and name != plan.result:
                values.pop(name, None)
    return values[plan.result]


def _of_lane(operand: Operand, lane: int) -> Leaf:
    """What a lane of a call reads: the oracle runs the lanes of a batch one by one."""
    return operand.lanes[lane] if isinstance(operand, Stack) else operand


def combine(statement: Combine, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The linear combination, added up in order; the sum of narrow terms is rounded once."""
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
    """What computes a lane of each callee, by its name."""
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
