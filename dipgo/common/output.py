"""Prints where the output may be full, closed, or in an encoding that lacks most characters."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any

from dipgo.common.errors import DipgoError

BROKEN_PIPE = 141
"""The exit code of a command whose reader has closed the pipe: 128 and SIGPIPE, as with others."""

OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""Errors of a file that is full, or that cannot be written to."""


def show_any_text(stream: Any) -> None:
    r"""Has a stream print characters that its encoding lacks as `\\u2588` instead of failing."""
    if hasattr(stream, "reconfigure") and stream.errors != "backslashreplace":
        stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Writes what was printed: else a full disk is noticed after the exit code is settled.

    Raises:
        OSError: It cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Drops what could not be printed: Python would try again at its end, and print a traceback."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def output_is_full(error: OSError) -> DipgoError:
    """Returns the error for output that could not be printed."""
    return DipgoError(
        "output",
        found=f"a place that takes no more ({error.strerror})",
        expected="one with room for what is printed",
        remedy="free some space, or print elsewhere",
    )


def say(line: str) -> None:
    """Prints a line on stderr, if that can be printed to."""
    with suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)
