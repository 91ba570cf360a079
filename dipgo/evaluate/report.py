"""The report: all figures of an evaluation as plain data, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from dipgo.evaluate.metrics import METHOD, Interval
from dipgo.evaluate.pairs import Pair

Cell = Callable[["Result"], str | None]

COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("steps", lambda one: str(one.steps)),
    ("MACs of dense", lambda one: f"{one.cost.macs_of_dense:.3f}"),
    ("s a run / dense's", lambda one: _seconds(one)),
    ("speedup", lambda one: f"{one.time.speedup:.2f}×" if one.time else None),
    ("SSIM", lambda one: _with_interval(one.metrics["ssim"], ".4f")),
    ("SSIM - first's", lambda one: _difference(one)),
    ("PSNR dB", lambda one: f"{one.metrics['psnr_db'].mean:.1f}"),
    ("latent error", lambda one: f"{one.metrics['latent_error'].mean:.4f}"),
    ("captions", lambda one: _optional(one, "caption", ".1%")),
    ("Fréchet", lambda one: None if one.frechet is None else f"{one.frechet:.3f}"),
    ("FID", lambda one: None if one.fid is None else f"{one.fid:.2f}"),
    ("CLIP", lambda one: _optional(one, "clip", ".2f")),
)
"""A column in which no line has anything is left out."""


def make_table(report: Report) -> Table:
    """Means over the pairs; in brackets where they lie with 95 % confidence."""
    table = Table(title=f"{report.model}: {len(report.pairs)} pairs, guidance {report.guidance:g}")
    table.add_column("")
    results = (report.dense, *report.subnets)
    cells = {heading: [cell(one) for one in results] for heading, cell in COLUMNS}
    shown = [heading for heading, column in cells.items() if any(column)]
    for heading in shown:
        table.add_column(heading, justify="right")
    for line, result in enumerate(results):
        table.add_row(result.name, *(cells[heading][line] or "" for heading in shown))
    return table


def _seconds(result: Result) -> str | None:
    """Both from the same turns: times taken at another hour may be of a busier machine."""
    time = result.time
    return f"{time.seconds:.3f} / {time.dense_seconds:.3f}" if time else None


def _with_interval(measured: Measured, form: str) -> str:
    return f"{measured.mean:{form}} [{measured.low:{form}}, {measured.high:{form}}]"


def _difference(result: Result) -> str | None:
    found = result.ssim_minus_first
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]" if found else None


def _optional(result: Result, metric: str, form: str) -> str | None:
    measured = result.metrics.get(metric)
    return f"{measured.mean:{form}}" if measured else None


FORMAT, VERSION = "dipgo.evaluation", 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric: its value for every pair, and their mean with its confidence interval."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds a run of the engines, `time_batch` pictures: medians, dense by turns with it."""

    seconds: float
    dense_seconds: float
    speedup: float
    runs: tuple[float, ...]
    dense_runs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """MACs a picture, and shares: of the SubNet's own dense plan, and of the evaluation's dense.

    Without attention products, as the papers count; `…_with_attention` with them.
    """

    macs: int
    macs_with_attention: int
    macs_kept: float
    macs_kept_with_attention: float
    macs_of_dense: float
    macs_of_dense_with_attention: float


@dataclass(frozen=True, slots=True)
class Result:
    """One SubNet, or dense, measured.

    `metrics` are `ssim`, `psnr_db` and `latent_error` to dense, and where asked for `caption`
    (1 where all heads read it correctly) and `clip`. `ssim_minus_first` is paired.
    """

    name: str
    steps: int
    scheduler: str
    evaluations: int
    cost: Cost
    metrics: Mapping[str, Measured]
    ssim_minus_first: Interval | None
    captions: Mapping[str, float] | None
    frechet: float | None
    fid: float | None
    time: Timed | None


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: what it was made with, dense, and every SubNet in the order given."""

    machine: Mapping[str, str]
    model: str
    model_sha256: str
    guidance: float
    batch: int
    time_batch: int
    threads: int
    pairs: tuple[Pair, ...]
    reference_pictures: int
    dense: Result
    subnets: tuple[Result, ...]

    def to_json(self) -> str:
        """What is infinite (PSNR of equal pictures) is null."""
        head = {"format": FORMAT, "version": VERSION, "intervals": METHOD}
        return json.dumps(_finite({**head, **asdict(self)}), indent=1, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
