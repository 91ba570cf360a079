"""What a search tells while it runs, and the log of it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

from dipgo.common.files import not_writable


@dataclass(frozen=True, slots=True)
class Progress:
    """One iteration: of which stage, how many of how many are done, and what it came to.

    `loss` is what is descended, `distance` its part that compares with dense; `kept` is the share
    of the cost that the gates keep.
    """

    stage: str
    done: int
    total: int
    loss: float
    distance: float
    kept: float


OnProgress: TypeAlias = Callable[[Progress], object]


def ignore(progress: Progress) -> None:
    """Tells nobody."""


@contextmanager
def csv_log(path: Path | None) -> Iterator[OnProgress]:
    """Yields what writes a line an iteration; a file that is there is gone on with."""
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
            writer.writerow(["stage", "done", "total", "loss", "distance", "kept", "seconds"])

        def write(progress: Progress) -> None:
            figures = (progress.loss, progress.distance, progress.kept)
            seconds = f"{perf_counter() - started:.1f}"
            row = [progress.stage, progress.done, progress.total]
            writer.writerow([*row, *(f"{one:.6g}" for one in figures), seconds])
            file.flush()

        yield write
