"""Progress that a search reports while it runs, and its log in CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

from dipgo.common.staged import not_writable


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a search after one iteration.

    Attributes:
        stage: The name of the stage.
        done: The number of iterations done in this stage.
        total: The number of iterations in this stage.
        loss: The value that is minimised.
        distance: The part of the loss that compares with the dense result.
        kept: The share of the cost that the gates keep.
    """

    stage: str
    done: int
    total: int
    loss: float
    distance: float
    kept: float


COLUMNS = ("stage", "done", "total", "loss", "distance", "kept", "seconds")

OnProgress: TypeAlias = Callable[[Progress], object]


def ignore(progress: Progress) -> None:
    """Does nothing."""


def is_log(path: Path) -> bool:
    """Returns whether a file is the log of a search, or the beginning of one."""
    head = ",".join(COLUMNS).encode()
    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            return False
        with path.open("rb") as file:
            return head.startswith(file.read(len(head)))
    except OSError:
        return False


def begin_log(path: Path) -> None:
    """Empties a log that is there; other files than regular ones are left alone.

    Raises:
        DipgoError: The file cannot be written.
    """
    try:
        if path.is_file():
            os.truncate(path, 0)
    except OSError as error:
        raise not_writable(path, "a place that cannot be written", error) from None


@contextmanager
def csv_log(path: Path | None) -> Iterator[OnProgress]:
    """Yields a writer of one CSV line per iteration; appends to an existing file.

    Raises:
        DipgoError: The file cannot be written.
    """
    if path is None:
        yield ignore
        return
    started = perf_counter()
    try:
        file = path.open("a", newline="", encoding="utf-8")
    except OSError as error:
        raise not_writable(path, "a place that cannot be written", error) from None
    with file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(COLUMNS)

        def write(progress: Progress) -> None:
            figures = (progress.loss, progress.distance, progress.kept)
            seconds = f"{perf_counter() - started:.1f}"
            row = [progress.stage, progress.done, progress.total]
            writer.writerow([*row, *(f"{figure:.6g}" for figure in figures), seconds])
            file.flush()

        yield write
