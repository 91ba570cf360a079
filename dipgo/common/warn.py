"""Warns, in one line, that a result may not be what it looks like; commands show the line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import currentframe

from dipgo.common.errors import named
from dipgo.common.one_line import one_line

_COMMANDS: list[Callable[[str], None]] = []
"""What shows a warning of the command that runs, the innermost last; empty in programs."""


class DipgoWarning(UserWarning):
    """A warning that a result may not be what it looks like, in one line."""


OWN = ("dipgo", "contextlib")
"""Packages whose functions a warning is not shown at: a program's own line called them."""


def warn(text: str) -> None:
    """Warns the program, at its line that called dipgo, or the user of a command.

    The settings that the text names are fields for programs, and flags for commands. Python shows
    a warning of the same place and text once, a command one of the same text.
    """
    if _COMMANDS:
        _COMMANDS[-1](text)
    else:
        warnings.warn(one_line(named(text, str)), DipgoWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """Returns the `stacklevel`, for a call in `warn`, of the nearest frame that is not dipgo's."""
    frame, level = currentframe(), 0
    while frame and str(frame.f_globals.get("__name__")).split(".")[0] in OWN:
        frame, level = frame.f_back, level + 1
    return level


@contextmanager
def shown_warnings(name_of: Callable[[str], str]) -> Iterator[None]:
    """Shows dipgo's warnings on stderr as one line each, with settings named by `name_of`."""
    seen: set[str] = set()

    def show(text: str) -> None:
        line = one_line(named(text, name_of))
        if line not in seen:
            seen.add(line)
            print(f"warning: {line}", file=sys.stderr, flush=True)

    _COMMANDS.append(show)
    try:
        yield
    finally:
        _COMMANDS.remove(show)
