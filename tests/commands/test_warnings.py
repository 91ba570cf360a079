"""Warnings of dipgo's: lines of a command on stderr, Python's warnings to a program."""

from __future__ import annotations

import warnings

import pytest

from dipgo import DipgoWarning
from dipgo.common.cli import run_command
from dipgo.common.warn import warn


def test_a_command_prints_its_own_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def body(arguments: list[str]) -> None:
        warn("it is so")
        warnings.warn("a library's", FutureWarning, stacklevel=1)

    assert run_command(body, []) == 0
    assert capsys.readouterr().err == "warning: it is so\n"


def test_a_program_may_make_it_an_error() -> None:
    with pytest.warns(DipgoWarning, match="it is so"):
        warn("it is so")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DipgoWarning)
        with pytest.raises(DipgoWarning):
            warn("it is so")
