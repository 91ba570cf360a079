"""Removes calls and combinations that nothing reads, now or later."""

from __future__ import annotations

from dataclasses import replace

from dipgo.ir.plan.nodes import Statement
from dipgo.ir.plan.plan import Plan


def eliminate_dead_calls(plan: Plan) -> Plan:
    """Keeps exactly the statements that write something the result depends on."""
    live = {plan.result}
    kept: list[Statement] = []
    for statement in reversed(plan.statements):
        if live.isdisjoint(statement.writes):
            continue
        live.update(statement.reads)
        kept.append(statement)
    return replace(plan, statements=tuple(reversed(kept)))
