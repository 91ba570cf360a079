"""What all commands share: one line on stderr and exit code 2 for a user's error; progress."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import NoReturn

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

from dipgo.errors import DipgoError
from dipgo.manifest import SIZE_PATTERN

USER_ERROR = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument takes one line too."""

    def error(self, message: str) -> NoReturn:
        """Tells argparse's problem as every other. Raises DipgoError."""
        where, found, expected = _explain(message)
        raise DipgoError(
            where or self.prog,
            found=found,
            expected=expected,
            remedy=f"see python -m {self.prog} --help",
        )


# What argparse says, and that as where, found and expected; the last form takes anything.
_PROBLEMS = (
    (r"argument (.+?): invalid int value: (.+)", (r"\1", r"\2", "a whole number")),
    (r"argument (.+?): invalid float value: (.+)", (r"\1", r"\2", "a number")),
    (r"argument (.+?): invalid (.+) value: (.+)", (r"\1", r"\3", r"\2")),
    (r"argument (.+?): expected (.+)", (r"\1", "another number of values", r"\2")),
    (r"the following arguments are required: (.+)", ("", r"no \1", "every required argument")),
    (r"unrecognized arguments: (.+)", ("", r"\1", "the arguments that the help lists")),
    (r"(?s)(.+)", ("", r"\1", "the arguments that the help lists")),
)


def _explain(message: str) -> tuple[str, ...]:
    matches = ((re.fullmatch(form, message), words) for form, words in _PROBLEMS)
    return next(tuple(map(match.expand, words)) for match, words in matches if match)


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least `least`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError
        return number

    # argparse names the type where it refuses a value.
    parse.__name__ = f"a whole number of at least {least}"
    return parse


def size(text: str) -> tuple[int, ...]:
    """The type of an argument such as `512x768` or `4x512x768`: pictures, height, width."""
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError
    return tuple(map(int, text.split("x")))


size.__name__ = "a height and width in pixels such as 512x768, or with a batch 4x512x768"


def lora(text: str) -> tuple[str, float]:
    """The type of an argument such as `style.safetensors` or `style.safetensors:0.8`."""
    path, _, scale = text.rpartition(":")
    try:
        number = float(scale)
    except ValueError:
        return text, 1.0
    if not path or not math.isfinite(number):
        raise ValueError
    return path, number


lora.__name__ = "a file and a finite scale such as style.safetensors:0.8"


def run_command(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; libraries' warnings are not for its users."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            main(sys.argv[1:] if arguments is None else arguments)
    except DipgoError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


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
