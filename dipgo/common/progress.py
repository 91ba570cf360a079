"""Shows a command's progress: stages and bars on a terminal, lines of text elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Shows on stderr what is being done: a spinner on a terminal, else a line at the start."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(description):
            yield
    else:
        print(description, file=sys.stderr, flush=True)
        yield


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that reports how many of `total` are done.

    Only a terminal shows the bar; elsewhere `description` is printed once.
    """
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
    """Yields a function that reports progress as (stage, number done, number in all, note).

    Each stage has a bar with the time left and the note. Without a terminal a line is printed at
    the beginning, at the end, and at every tenth in between.
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
    """Silences stderr unless `speaks`, so that only one of several equal processes reports.

    Errors still reach the user from every process: exceptions pass through.
    """
    if speaks:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield
