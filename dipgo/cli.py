"""What all commands share: one line on stderr and exit code 2 for a user's error; progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console

from dipgo.errors import DipgoError

USER_ERROR = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument takes one line too."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and where help is."""
        self.exit(USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def run_command(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    try:
        main(sys.argv[1:] if arguments is None else arguments)
    except DipgoError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Shows on stderr what is going on: a spinner on a terminal, else a line when it begins."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(description):
            yield
    else:
        print(description, file=sys.stderr, flush=True)
        yield
