"""Step fusion: consecutive sampler updates become one linear combination.

A state that no call reads is only an intermediate value of the next state. Under DDIM the updates
of a run of fully reused steps telescope to one long step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from dipgo.ir.plan.nodes import Combine, Statement, Terms, substitute
from dipgo.ir.plan.plan import Plan


def fuse_steps(plan: Plan) -> Plan:
    """Inlines each combination that is read exactly once, and by a combination."""
    inlined = _read_once_by_a_combination(plan)
    definitions: dict[str, Terms] = {}
    kept: list[Statement] = []
    for statement in plan.statements:
        if not isinstance(statement, Combine):
            kept.append(statement)
            continue
        terms = substitute(statement, definitions)
        if statement.result in inlined:
            definitions[statement.result] = terms
        else:
            kept.append(replace(statement, terms=terms))
    return replace(plan, statements=tuple(kept))


def _read_once_by_a_combination(plan: Plan) -> set[str]:
    uses = Counter(name for statement in plan.statements for name in statement.reads)
    uses[plan.result] += 1
    read_by_combinations = {
        name
        for statement in plan.statements
        if isinstance(statement, Combine)
        for name in statement.reads
    }
    return {name for name in read_by_combinations if uses[name] == 1}
