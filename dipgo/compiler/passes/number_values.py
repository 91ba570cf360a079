"""Global value numbering across steps: a value computed before is named, not computed again.

In a step in which every block is reused the head reads the same value as before, so its call is the
same call, and the step's prediction is the earlier step's prediction.
"""

from __future__ import annotations

from dataclasses import replace

from dipgo.ir.plan.nodes import Call, Combine, Leaf, Read, Statement, map_leaves, merge_terms
from dipgo.ir.plan.plan import Plan


def number_values(plan: Plan) -> Plan:
    """Drops each statement that repeats an earlier one, and each copy, and renames its readers.

    The result has its own memory, so it stays a copy if its source is an input or the lane of a
    batch, which have a place already.
    """
    placed = _inputs_and_lanes(plan)
    names: dict[str, str] = {}
    known: dict[object, Statement] = {}
    kept: list[Statement] = []
    for statement in plan.statements:
        current = _rename(statement, names)
        if isinstance(current, Combine) and _is_copy(current):
            source = current.terms[0][1]
            if current.result != plan.result or source not in placed:
                names[current.result] = source
                continue
        earlier = known.setdefault(_number(current), current)
        if earlier is current:
            kept.append(current)
        else:
            names.update(_same_results(current, earlier))
    return replace(plan, statements=tuple(kept), result=names.get(plan.result, plan.result))


def _inputs_and_lanes(plan: Plan) -> set[str]:
    """Returns the inputs of the plan and the lanes of batched calls."""
    inputs = {value.name for value in plan.inputs}
    return inputs.union(*(call.results for call in plan.calls if call.width > 1))


def _rename(statement: Statement, names: dict[str, str]) -> Statement:
    if isinstance(statement, Combine):
        terms = tuple((number, names.get(name, name)) for number, name in statement.terms)
        return replace(statement, terms=merge_terms(terms))

    def rename(leaf: Leaf) -> Leaf:
        return Read(names.get(leaf.name, leaf.name)) if isinstance(leaf, Read) else leaf

    operands = tuple(map_leaves(operand, rename) for operand in statement.operands)
    return replace(statement, operands=operands)


def _is_copy(combine: Combine) -> bool:
    return len(combine.terms) == 1 and combine.terms[0][0] == 1.0


def _number(statement: Statement) -> object:
    if isinstance(statement, Call):
        return (statement.callee, statement.operands)
    return statement.terms


def _same_results(duplicate: Statement, earlier: Statement) -> dict[str, str]:
    if isinstance(duplicate, Call) and isinstance(earlier, Call):
        return dict(zip(duplicate.results, earlier.results, strict=True))
    assert isinstance(duplicate, Combine)
    assert isinstance(earlier, Combine)
    return {duplicate.result: earlier.result}
