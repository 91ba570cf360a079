"""The oracle: an eager interpreter of plans, with which every other path is compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from dipgo.plan import Combine, Leaf, Operand, Plan, Stack, TableRow, reads
from dipgo.tables import fill_tables
from dipgo.trace import Traced


@torch.no_grad()
def interpret(plan: Plan, traced: Traced, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Runs the plan, before or after segmenting, on torch tensors of the plan's input types."""
    modules = _modules(plan, traced)
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
                operands = (_of_lane(operand, lane) for operand in statement.operands)
                results = modules[statement.callee](*map(fetch, operands))
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
    """The linear combination in the element type of its terms, added up in order."""
    (first, name), *rest = statement.terms
    total = values[name] * first
    for coefficient, other in rest:
        total = total + values[other] * coefficient
    return total


def _modules(plan: Plan, traced: Traced) -> dict[str, fx.GraphModule]:
    return {
        callee.name: traced.module(
            callee.members or (callee.name,),
            [value.name for value in callee.inputs],
            [value.name for value in callee.outputs],
        )
        for callee in plan.callees
    }
