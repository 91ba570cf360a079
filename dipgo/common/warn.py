"""Warns, in one line, that a result may not be what it looks like; commands show the line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dipgo.common.errors import named

_COMMANDS: list[Callable[[str], None]] = []
"""What shows a warning of the command that runs, the innermost last; empty in programs."""


class DipgoWarning(UserWarning):
    """A warning that a result may not be what it looks like, in one line."""


def warn(text: str, stacklevel: int = 1) -> None:
    """Warns the caller, or with a higher `stacklevel` the caller's caller.

    The settings that the text names are fields for programs, and flags for commands. Python shows
    a warning of the same place and text once, a command one of the same text.
    """
    if _COMMANDS:
        _COMMANDS[-1](text)
    else:
        warnings.warn(" ".join(named(text, str).split()), DipgoWarning, stacklevel=stacklevel + 1)


@contextmanager
def shown_warnings(name_of: Callable[[str], str]) -> Iterator[None]:
    """Shows dipgo's warnings on stderr as one line each, with settings named by `name_of`."""
    seen: set[str] = set()

    def show(text: str) -> None:
        line = " ".join(named(text, name_of).split())
        if line not in seen:
            seen.add(line)
            print(f"warning: {line}", file=sys.stderr, flush=True)

    _COMMANDS.append(show)
    try:
        yield
    finally:
        _COMMANDS.remove(show)
