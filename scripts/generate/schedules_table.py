"""Writes the table of docs/guide/schedules.md: a row a rule of `dipgo.schedules.RULES`."""

from __future__ import annotations

import re
from pathlib import Path

from dipgo.schedules import RULES, Rule

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "schedules.md"
HEAD = """| `--method` | method | in `dipgo.schedules` | parameter | gates | needs | source |
|---|---|---|---|---|---|---|
"""
TABLE = re.compile(r"^\| `--method` .*\n(?:\|.*\n)+", re.MULTILINE)


def schedules_table() -> str:
    """Returns the table, its head included."""
    return HEAD + "".join(map(_row, RULES.values()))


def _row(rule: Rule) -> str:
    module = rule.function.__module__.removeprefix("dipgo.schedules.")
    cells = (
        f"`{rule.name}`",
        rule.title,
        f"`{module}.{rule.function.__name__}`",
        f"`{rule.takes.name}`",
        rule.gates,
        " ".join(f"`--{name}`" for name in rule.options),
        rule.source,
    )
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: schedules_table(), PAGE.read_text()))
