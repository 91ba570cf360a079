"""Warns, in one line, that a result may not be what it looks like; commands show the line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dipgo.common.errors import named


class DipgoWarning(UserWarning):
    """A warning in one line; it names settings as errors do, for programs by their fields."""

    def __init__(self, text: str) -> None:
        self._marked = text
        super().__init__(self.worded(str))

    def worded(self, name_of: Callable[[str], str]) -> str:
        """Returns the line, with settings named by `name_of`."""
        return " ".join(named(self._marked, name_of).split())


def warn(text: str, stacklevel: int = 1) -> None:
    """Warns the caller, or with a higher `stacklevel` the caller's caller.

    Python shows a warning of the same place and text once.
    """
    warnings.warn(DipgoWarning(text), stacklevel=stacklevel + 1)


@contextmanager
def shown_warnings(name_of: Callable[[str], str]) -> Iterator[None]:
    """Shows dipgo's warnings on stderr as one line each, with settings named by `name_of`.

    Filters that Python was started with are obeyed.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.filterwarnings("default", category=DipgoWarning)
        others = warnings.showwarning

        def show(message: Any, *place: Any, **more: Any) -> None:
            if isinstance(message, DipgoWarning):
                print(f"warning: {message.worded(name_of)}", file=sys.stderr, flush=True)
            else:
                others(message, *place, **more)

        warnings.showwarning = show
        yield
