"""What all commands share: one line on stderr and exit code 2 for a user's error; progress."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from dipgo.common.errors import DipgoError

USER_ERROR = 2

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument takes one line too."""

    def error(self, message: str) -> NoReturn:
        """Tells argparse's problem as every other. Raises DipgoError."""
        where, found, expected = _explain(message)
        raise DipgoError(
            where or self.prog,
            found=found,
            expected=expected,
            remedy=f"see python -m {self.prog} --help",
        )


# What argparse says, and that as where, found and expected; the last form takes anything.
_PROBLEMS = (
    (r"argument (.+?): invalid int value: (.+)", (r"\1", r"\2", "a whole number")),
    (r"argument (.+?): invalid float value: (.+)", (r"\1", r"\2", "a number")),
    (r"argument (.+?): invalid (.+) value: (.+)", (r"\1", r"\3", r"\2")),
    (r"argument (.+?): expected (.+)", (r"\1", "another number of values", r"\2")),
    (r"the following arguments are required: (.+)", ("", r"no \1", "every required argument")),
    (r"unrecognized arguments: (.+)", ("", r"\1", "the arguments that the help lists")),
    (r"(?s)(.+)", ("", r"\1", "the arguments that the help lists")),
)


def _explain(message: str) -> tuple[str, ...]:
    matches = ((re.fullmatch(form, message), words) for form, words in _PROBLEMS)
    return next(tuple(map(match.expand, words)) for match, words in matches if match)


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least `least`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError
        return number

    # argparse names the type where it refuses a value.
    parse.__name__ = f"a whole number of at least {least}"
    return parse


def run_command(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; libraries' warnings are not for its users."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            main(sys.argv[1:] if arguments is None else arguments)
    except DipgoError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0
