"""Warnings of dipgo: a line on stderr for commands, Python's warnings for programs."""

from __future__ import annotations

import warnings
from argparse import Namespace

import pytest

import dipgo
from dipgo.common.cli import Parser, run_command
from dipgo.common.errors import setting
from dipgo.common.warn import warn

LINE = f"{setting('guidance_scale')}: found 12"


def _command(arguments: list[str]) -> None:
    parser = Parser("dipgo.test", description="Warns.")
    parser.add_argument("--guidance-scale")
    parser.run(_body, arguments)


def _body(options: Namespace) -> None:
    for _ in range(2):
        warn(LINE)


def test_a_command_shows_a_line_once_and_names_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(_command, []) == 0
    assert capsys.readouterr().err == "warning: --guidance-scale: found 12\n"


def test_a_program_gets_a_warning_that_names_fields() -> None:
    with pytest.warns(dipgo.DipgoWarning, match="^guidance_scale: found 12$") as caught:
        warn(LINE)
    assert caught[0].filename == __file__


def test_after_a_command_a_program_warns_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    before = (list(warnings.filters), warnings.showwarning)
    run_command(_command, [])
    assert (list(warnings.filters), warnings.showwarning) == before
    with pytest.warns(dipgo.DipgoWarning):
        warn(LINE)
    assert capsys.readouterr().err.count("warning") == 1
