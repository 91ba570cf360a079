"""Runs a module of this package on one engine, in a new process that ends when this one does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from dipgo.common.errors import DipgoError

_RUNNING: set[subprocess.Popen[bytes]] = set()
"""The processes that this one waits for."""

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def run_in_a_process(module: str, request: Any, where: str, *, expected: str, remedy: str) -> None:
    """Hands a request to the module, as JSON on standard input, and waits.

    Args:
        module: The module that is run with `python -m`; it calls `end_with_parent` first.
        request: What it reads.
        where: The place that the error names.
        expected: What was expected, for the error.
        remedy: What the user can do about a failure.

    Raises:
        DipgoError: The process fails; the error has the library's last words.
    """
    command = [sys.executable, "-m", module, str(os.getpid())]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        _RUNNING.add(process)
        try:
            _, said = process.communicate(msgspec.json.encode(request))
        except BaseException:
            process.kill()
            raise
        finally:
            _RUNNING.discard(process)
    if process.returncode == 0:
        return
    problem = _last_words(said.decode(errors="replace"), process.returncode)
    raise DipgoError(where, found=problem, expected=expected, remedy=remedy)


def end_processes() -> None:
    """Ends the processes that other threads wait for."""
    for process in tuple(_RUNNING):
        process.kill()


def end_with_parent() -> None:
    """Lets the system end this process with the one that started it, however that ends (Linux).

    The parent's number is the first argument: it may have ended before this is called.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if sys.argv[1:] and os.getppid() != int(sys.argv[1]):
        sys.exit(1)


def _last_words(stderr: str, code: int) -> str:
    """Returns the library's last error in one line, or the signal that ended the process."""
    if code < 0:
        return f"the process was ended by signal {-code}, as when memory runs out"
    lines: Sequence[str] = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("[E]") or "Error" in line]
    return (errors or lines or ["no word on why"])[-1][:500]
