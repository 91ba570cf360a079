"""What a command shows while it works: stages, bars, lines off a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Shows on stderr what is going on: a spinner on a terminal, else a line when it begins."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(description):
            yield
    else:
        print(description, file=sys.stderr, flush=True)
        yield


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that says how many of `total` are done; off a terminal it is silent."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(description, file=sys.stderr, flush=True)
        yield lambda done: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def live_progress() -> Iterator[Callable[[str, int, int, str], None]]:
    """Yields a function of stage, how many of how many are done, and a note on how it stands.

    A bar for each stage, with the time left; off a terminal a line at the beginning, at the end
    and at every tenth of the way.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_tenths
        return
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int, note: str) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note=note)
            progress.update(tasks[name], completed=done, note=note)

        yield show


def _print_tenths(name: str, done: int, total: int, note: str) -> None:
    if done == 1 or done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{name} {done}/{total}  {note}".rstrip(), file=sys.stderr, flush=True)


@contextmanager
def mute_unless(speaks: bool) -> Iterator[None]:
    """Of several processes that do the same, one tells of it; errors are told by all."""
    if speaks:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield
