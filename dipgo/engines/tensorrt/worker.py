"""Processes: work on one engine, done by a module of this package in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from dipgo.common.errors import DipgoError


def run_in_a_process(module: str, request: Any, where: str, *, expected: str, remedy: str) -> None:
    """Hands the request to the module, as JSON on standard input, and waits.

    Raises DipgoError, with `expected` and `remedy`, where it fails.
    """
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, input=msgspec.json.encode(request), capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    found = _last_words(done.stderr.decode(errors="replace"), done.returncode)
    raise DipgoError(where, found=found, expected=expected, remedy=remedy)


def _last_words(stderr: str, code: int) -> str:
    """What the library said, in one line; where the system ended the process, that."""
    if code < 0:
        return f"the process was ended by signal {-code}, as when memory runs out"
    lines: Sequence[str] = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("[E]") or "Error" in line]
    return (errors or lines or ["no word on why"])[-1][:500]
