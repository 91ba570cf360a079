"""Tables: what depends on the timestep alone, computed once for every timestep of the plan."""

from __future__ import annotations

import torch

from dipgo.graph import Dependence
from dipgo.plan import Plan, Table
from dipgo.trace import Traced


@torch.no_grad()
def fill_tables(plan: Plan, traced: Traced) -> dict[str, torch.Tensor]:
    """For every table of the plan its rows, stacked: `[len(table.rows), *table.type.shape]`."""
    timesteps = {step.row: step.timestep for step in plan.steps}
    return {table.name: _fill(table, timesteps, traced) for table in plan.tables}


def _fill(table: Table, timesteps: dict[int, float], traced: Traced) -> torch.Tensor:
    if table.name in traced.given_tables:
        return torch.stack([traced.given_tables[table.name][row] for row in table.rows])
    timestep = traced.graph.input_of(Dependence.TIMESTEP).name
    inputs = [torch.tensor(timesteps[row]) for row in table.rows]
    if table.name == timestep:
        return torch.stack(inputs)
    nodes = [n.name for n in traced.graph.nodes if n.dependence == Dependence.TIMESTEP]
    compute = traced.module(nodes, [timestep], [table.name])
    return torch.stack([compute(one)[0] for one in inputs])
