"""Timestep folding: a call that reads only rows of tables is itself a row of a table.

The steps are known when exporting, so what depends on the timestep alone, such as the time
embedding, is computed then, once per timestep, and stored.
"""

from __future__ import annotations

from dataclasses import replace

from dipgo.ir.plan.nodes import (
    Call,
    Callee,
    Leaf,
    Operand,
    Read,
    Statement,
    Table,
    TableRow,
    map_leaves,
)
from dipgo.ir.plan.plan import Plan


def fold_timesteps(plan: Plan) -> Plan:
    """Replaces calls that read only rows of one timestep by rows of new tables.

    The tables are named after the callee's outputs. Only rows that are still in use are kept.
    """
    outputs = {callee.name: callee.outputs for callee in plan.callees}
    folded: dict[str, TableRow] = {}
    types = {table.name: table.type for table in plan.tables}
    kept: list[Statement] = []
    for statement in plan.statements:
        if not isinstance(statement, Call):
            kept.append(statement)
            continue
        operands = tuple(
            map_leaves(operand, lambda leaf: _folded(leaf, folded))
            for operand in statement.operands
        )
        row = _common_row(operands)
        if row is None:
            kept.append(replace(statement, operands=operands))
            continue
        for result, value in zip(statement.results, outputs[statement.callee], strict=True):
            folded[result] = TableRow(value.name, row)
            types[value.name] = value.type
    statements = tuple(kept)
    tables = tuple(
        Table(name, types[name], rows) for name, rows in _rows_in_use(statements).items()
    )
    return replace(plan, statements=statements, tables=tables, callees=_called(plan, statements))


def _folded(leaf: Leaf, folded: dict[str, TableRow]) -> Leaf:
    return folded.get(leaf.name, leaf) if isinstance(leaf, Read) else leaf


def _common_row(operands: tuple[Operand, ...]) -> int | None:
    """Returns the row if every operand is a row of a table, and all have the same row."""
    rows = {operand.row if isinstance(operand, TableRow) else None for operand in operands}
    return rows.pop() if len(rows) == 1 else None


def _rows_in_use(statements: tuple[Statement, ...]) -> dict[str, tuple[int, ...]]:
    used: dict[str, set[int]] = {}
    for statement in statements:
        for leaf in statement.leaves if isinstance(statement, Call) else ():
            if isinstance(leaf, TableRow):
                used.setdefault(leaf.table, set()).add(leaf.row)
    return {name: tuple(sorted(rows)) for name, rows in used.items()}


def _called(plan: Plan, statements: tuple[Statement, ...]) -> tuple[Callee, ...]:
    called = {statement.callee for statement in statements if isinstance(statement, Call)}
    return tuple(callee for callee in plan.callees if callee.name in called)
