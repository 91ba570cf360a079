"""Prompt hoisting: work that does not depend on the state leaves the loop.

It then runs once per prompt: the projections of the prompt's keys and values once, and what depends
on the prompt and on the timestep, such as the modulations of adaLN blocks, for every step that
needs it, all before the loop, where `batch_calls` makes one call of it.
"""

from __future__ import annotations

from dataclasses import replace

from dipgo.ir.plan.nodes import PROLOGUE, Combine, Statement
from dipgo.ir.plan.plan import Plan


def hoist_prompt_work(plan: Plan) -> Plan:
    """Moves each call that reads nothing computed from the state to the prologue."""
    from_state = {plan.state, *(draw.value for draw in plan.draws)}
    prologue: list[Statement] = []
    loop: list[Statement] = []
    for statement in plan.statements:
        if isinstance(statement, Combine) or not from_state.isdisjoint(statement.reads):
            from_state.update(statement.writes)
            loop.append(statement)
        else:
            prologue.append(replace(statement, step=PROLOGUE))
    return replace(plan, statements=(*prologue, *loop))
