"""Silences libraries' warnings for a while, also where several threads do so at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_LOCK = RLock()
"""Held while warnings are silenced: the filters are the process's, and whoever begins first would
otherwise put back the filters of whoever ends last, who had found them silenced."""


@contextmanager
def without_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignores warnings of a category, and puts the filters back as they were.

    Threads that do so wait for each other.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
