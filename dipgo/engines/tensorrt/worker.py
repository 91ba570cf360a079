"""Runs a module of this package on one engine, in a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from dipgo.common.errors import DipgoError


def run_in_a_process(module: str, request: Any, where: str, *, expected: str, remedy: str) -> None:
    """Hands a request to the module, as JSON on standard input, and waits.

    Args:
        module: The module that is run with `python -m`.
        request: What it reads.
        where: The place that the error names.
        expected: What was expected, for the error.
        remedy: What the user can do about a failure.

    Raises:
        DipgoError: The process fails; the error has the library's last words.
    """
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, input=msgspec.json.encode(request), capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    problem = _last_words(done.stderr.decode(errors="replace"), done.returncode)
    raise DipgoError(where, found=problem, expected=expected, remedy=remedy)


def _last_words(stderr: str, code: int) -> str:
    """Returns the library's last error in one line, or the signal that ended the process."""
    if code < 0:
        return f"the process was ended by signal {-code}, as when memory runs out"
    lines: Sequence[str] = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("[E]") or "Error" in line]
    return (errors or lines or ["no word on why"])[-1][:500]
