"""The frame of a script: its parser, its JSON report, its machine's description and its table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from dipgo.common.cli import Parser, run_command, whole_number
from dipgo.common.machine import describe_machine
from dipgo.common.typed_json import write_text

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"
SUBNETS = ROOT / "examples" / "subnets"


def run_script(main: Callable[[list[str]], None]) -> NoReturn:
    """Runs a script as the commands run: a user's error takes one line and exit code 2."""
    sys.exit(run_command(main))


def script_parser(file: str, description: str | None) -> Parser:
    """Returns the parser of the script in `file`, with its docstring as it stands for help."""
    parts = Path(file).resolve().relative_to(ROOT).with_suffix("").parts
    parser = Parser(".".join(parts), description="")
    parser.description = description
    return parser


def add_json(
    parser: Parser,
    *,
    required: bool = False,
    default: Path | None = None,
    what: str = "write the figures here",
) -> None:
    """Adds `--json FILE`, where `write_report` is to write."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", required=required, default=default, help=what
    )


def add_threads(parser: Parser) -> None:
    """Adds `--threads N`; 0 takes every core."""
    parser.add_argument(
        "--threads", type=whole_number(0), default=0, metavar="N", help="threads; 0: all cores"
    )


def new_report(**figures: Any) -> dict[str, Any]:
    """Returns a report that begins with the machine, the packages' versions and the date."""
    return {"machine": describe_machine(), **figures}


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    """Writes a report in one step, and makes its folder; does nothing without a path.

    Raises:
        DipgoError: The file cannot be written.
    """
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(null_if_not_finite(report), indent=1, allow_nan=False)
        write_text(path, text + "\n")


def null_if_not_finite(entry: Any) -> Any:
    """Returns `entry` with None for NaN and infinity, for which JSON has no word."""
    if isinstance(entry, dict):
        return {key: null_if_not_finite(value) for key, value in entry.items()}
    if isinstance(entry, list | tuple):
        return [null_if_not_finite(value) for value in entry]
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


def print_machine(machine: dict[str, str]) -> None:
    """Prints a report's machine in a line."""
    line = "  ".join(f"{name} {value}" for name, value in machine.items())
    Console().print(line, style="dim", highlight=False)


def make_table(
    title: str | None, headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1
) -> Table:
    """Returns a table whose first `texts` columns are left-aligned, as words; the rest, right.

    A row may end early.
    """
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < texts else "right")
    for row in rows:
        table.add_row(*row)
    return table
