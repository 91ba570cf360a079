"""Writes docs/reference/cli.md: every command and its options, from the parsers themselves."""

from __future__ import annotations

import importlib
from argparse import SUPPRESS, Action, HelpFormatter
from collections.abc import Iterator
from pathlib import Path

from dipgo.__main__ import COMMANDS
from dipgo.common.cli import Parser

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
HEAD = """# Commands

Each command is `dipgo X` and `python -m dipgo.X`, which are the same. Exit code 0 means done, and 2
an error of the user's, which is reported in one line. This page is generated from the parsers:
`python -m scripts.generate.cli_reference`.
"""


def cli_page() -> str:
    """Returns the whole page."""
    return "\n".join((HEAD, *(_section(name) for name in COMMANDS)))


def parser_of(command: str) -> Parser:
    """Returns the parser of `dipgo COMMAND`."""
    parser: Parser = importlib.import_module(COMMANDS[command][0])._parser()
    return parser


def actions_of(command: str) -> list[Action]:
    """Returns the arguments and options of a command, without `--help` and hidden ones."""
    return [action for action in parser_of(command)._actions if _is_shown(action)]


def _section(command: str) -> str:
    parser = parser_of(command)
    about = COMMANDS[command][1]
    lines = [f"## dipgo {command}", "", f"{about[0].upper()}{about[1:]}.", ""]
    for group in parser._action_groups:
        lines.extend(_table(parser, group.title or "", group.description, group._group_actions))
    return "\n".join(lines)


def _table(
    parser: Parser, title: str, description: str | None, actions: list[Action]
) -> Iterator[str]:
    shown = [action for action in actions if _is_shown(action)]
    if not shown:
        return
    if description:
        yield from (description, "")
    yield from (f"| {title} | |", "|---|---|")
    formatter = HelpFormatter(parser.prog)
    yield from (_row(formatter, action) for action in shown)
    yield ""


def _row(formatter: HelpFormatter, action: Action) -> str:
    text = formatter._expand_help(action) if action.help else ""
    needed = " (required)" if action.required and action.option_strings else ""
    return f"| `{_escape(_invocation(action))}`{needed} | {_escape(text)} |"


def _invocation(action: Action) -> str:
    """The option with its value as the usage line has it, such as `--size HxW`."""
    default = action.dest if not action.option_strings else action.dest.upper()
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else default)
    name = ", ".join(action.option_strings) or str(value)
    if not action.option_strings or action.nargs == 0:
        return name
    return f"{name} {value}{' …' if action.nargs in ('+', '*') else ''}"


def _is_shown(action: Action) -> bool:
    return action.help != SUPPRESS and "--help" not in action.option_strings


def _escape(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
