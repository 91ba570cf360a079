"""Runs a function in a child process under limits, and sees what it does to the machine.

Python reports files that are opened, and programs and pickles that are run, by audit events; what
native code does shows in the folders around, which must not change.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

RUNS = frozenset(
    (
        *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "os.fork"),
        *("pickle.find_class", "socket.connect", "os.kill", "webbrowser.open"),
    )
)
"""Audit events of code that is run, or that a program from elsewhere would cause."""

STARTS = frozenset(("subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "os.kill"))
"""Those of them that starting and ending a process of one's own causes."""

REMOVES = frozenset(("os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "os.truncate"))

POLL = 0.005

REFUSED = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take: seconds, and bytes beyond those that its parent has."""

    seconds: float = 30.0
    nbytes: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Report:
    """What a child did. `faults` is empty if it ended as a command may end."""

    codes: dict[str, int] = field(default_factory=dict)
    """Exit codes, by what was run."""
    faults: list[str] = field(default_factory=list)
    words: str = ""
    """The last line that it wrote."""
    seconds: float = 0.0
    peak_nbytes: int = 0


def watch(
    actions: dict[str, Callable[[], int]],
    reads: Sequence[Path],
    writes: Path,
    limits: Limits,
    builds: Path | None = None,
) -> Report:
    """Runs actions one after another in a child of this process.

    Args:
        actions: Functions that return an exit code, by name.
        reads: Folders in which files may be read.
        writes: The folder in which files may be made, changed and removed.
        limits: What the child may take.
        builds: A further such folder, of a command that starts processes of its own.
    """
    output, result = writes / "output.txt", writes / "result.json"
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        changes = [str(writes), *([str(builds)] if builds else [])]
        runs = RUNS - STARTS if builds else RUNS
        _run_and_exit(actions, (list(map(str, reads)), changes, runs), limits, output, result)
    status, usage = _wait(child, begun + limits.seconds)
    seconds = time.monotonic() - begun
    text = output.read_text(errors="replace") if output.exists() else ""
    codes: dict[str, int] = {}
    faults: list[str] = []
    if status is None:
        faults.append(f"still running after {limits.seconds:g} s")
    elif os.WIFSIGNALED(status):
        faults.append(f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
    elif not result.exists():
        faults.append("ended without a word")
    if result.exists():
        written = json.loads(result.read_text())
        codes, faults = written["codes"], faults + written["faults"]
    if "Traceback (most recent call last)" in text:
        faults.append("a traceback")
    lines = [line for line in text.splitlines() if line.strip()]
    return Report(codes, faults, lines[-1] if lines else "", seconds, usage)


def _wait(child: int, end: float) -> tuple[int | None, int]:
    """Returns the child's status, None if it had to be ended, and its peak memory in bytes."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage.ru_maxrss * 1024
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return None, usage.ru_maxrss * 1024
        time.sleep(POLL)


Allowed: TypeAlias = tuple[list[str], list[str], Set[str]]
"""Folders that may be read, those that may be written to, and events that are faults."""


def _run_and_exit(
    actions: dict[str, Callable[[], int]],
    allowed: Allowed,
    limits: Limits,
    output: Path,
    result: Path,
) -> None:
    """Is all that the child does; it ends here whatever happens."""
    faulthandler.disable()
    try:
        with output.open("wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        codes: dict[str, int] = {}
        _limit_memory(limits.nbytes)
        faults = _watch_events(*allowed)
        for name, action in actions.items():
            try:
                codes[name] = action()
            except MemoryError:
                faults.append(f"{name}: MemoryError")
            except BaseException as error:
                traceback.print_exc()
                faults.append(f"{name}: {type(error).__name__}")
            if codes.get(name) not in (None, 0, REFUSED):
                faults.append(f"{name}: exit code {codes[name]}")
        sys.stdout.flush()
        sys.stderr.flush()
        result.write_text(json.dumps({"codes": codes, "faults": faults}))
    finally:
        os._exit(0)


def _limit_memory(nbytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + nbytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch_events(reads: list[str], changes: list[str], runs: Set[str]) -> list[str]:
    """Returns the list to which faults are added from now on."""
    faults: list[str] = []
    writes = tuple(changes)
    system = ("/proc/", "/sys/", "/dev/urandom", "/dev/null", "/etc/", "/usr/", "/lib", "/var/lib/")
    allowed = (*reads, *writes, *system, sys.prefix, sys.base_prefix, *map(os.path.realpath, reads))

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event in runs:
            faults.append(f"{event} {arguments[:1]}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.fsdecode(arguments[0]), arguments[2] or 0
            written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            path = os.path.abspath(path)
            if written and not path.startswith((*writes, "/dev/null")):
                faults.append(f"writes {path}"[:200])
            elif not os.path.realpath(path).startswith(allowed):
                faults.append(f"reads {path}"[:200])
        elif event in REMOVES and (event == "os.truncate" or arguments[-1] in (-1, None)):
            # A name in an open folder has another last argument; that folder was seen before.
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(writes):
                faults.append(f"{event} {path}"[:200])

    sys.addaudithook(see)
    return faults
