"""Starts processes that signals reach, also where the tests run as a shell's background job."""

from __future__ import annotations

import signal
import subprocess

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def take_signals() -> None:
    """To be called in a new process, as `preexec_fn`: background jobs ignore some of them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)


def said_in_time(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """What a process says on stderr until it ends; one that does not end is killed."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
