"""What was asked for, and how far what was done has come."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from scripts.benchmarks.gpu_checks.machine import release

FAILED, SKIPPED = "failed", "skipped"


@dataclass(frozen=True)
class Settings:
    """The command's options."""

    device: str = "cuda"
    repeats: int = 5
    steps: int | None = None
    compile: bool = True
    compile_mode: str = "default"
    time_limit: float | None = None
    started: float = field(default_factory=perf_counter)

    def attempt(self, what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `work` finds, or why it failed; after the time limit it is not begun.

        A failure is a finding: the rest goes on.
        """
        if self.time_limit is not None and perf_counter() - self.started > self.time_limit:
            return {SKIPPED: f"the time limit of {self.time_limit:g} s had passed"}
        print(what, file=sys.stderr, flush=True)
        try:
            found = work()
        except Exception as error:  # of any library, out of memory among them
            found = {FAILED: _one_line(error)}
        # After the error, whose frames hold what was made. A device that is lost for good says so
        # again at the next measurement.
        with suppress(RuntimeError):
            release(self.device)
        return found


def _one_line(error: Exception) -> str:
    """The message, and the innermost place; what the frames hold goes."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    traceback.clear_frames(error.__traceback__)
    text = " ".join(str(error).split())[:400]
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})"


def failures(found: Any) -> list[str]:
    """All reasons of failures in a report."""
    if not isinstance(found, dict):
        return []
    here = [found[FAILED]] if isinstance(found.get(FAILED), str) else []
    return here + [one for entry in found.values() for one in failures(entry)]
