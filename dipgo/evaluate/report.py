"""The report: all figures of an evaluation as plain data, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from dipgo.engines.ratios import Ratio
from dipgo.evaluate.metrics import METHOD, Interval
from dipgo.evaluate.pairs import Pair

Cell = Callable[["Result"], str | None]

COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("steps", lambda row: str(row.steps)),
    ("MACs of dense", lambda row: f"{row.cost.macs_of_dense:.3f}"),
    ("s a run / dense's", lambda row: _seconds(row)),
    ("speedup", lambda row: row.time.ratio.text(".2f", "×") if row.time else None),
    ("SSIM", lambda row: _with_interval(row.metrics["ssim"], ".4f")),
    ("SSIM - first's", lambda row: _difference(row)),
    ("PSNR dB", lambda row: f"{row.metrics['psnr_db'].mean:.1f}"),
    ("latent error", lambda row: f"{row.metrics['latent_error'].mean:.4f}"),
    ("captions", lambda row: _optional(row, "caption", ".1%")),
    ("Fréchet", lambda row: None if row.frechet is None else f"{row.frechet:.3f}"),
    ("FID", lambda row: None if row.fid is None else f"{row.fid:.2f}"),
    ("CLIP", lambda row: _optional(row, "clip", ".2f")),
)
"""Columns of the table; a column in which every cell is empty is left out."""


def make_table(report: Report) -> Table:
    """Returns a table of means over the pairs, with 95 % confidence intervals in brackets."""
    table = Table(title=f"{report.model}: {len(report.pairs)} pairs, guidance {report.guidance:g}")
    table.add_column("")
    results = (report.dense, *report.subnets)
    cells = {heading: [cell(result) for result in results] for heading, cell in COLUMNS}
    shown = [heading for heading, column in cells.items() if any(column)]
    for heading in shown:
        table.add_column(heading, justify="right")
    for line, result in enumerate(results):
        table.add_row(result.name, *(cells[heading][line] or "" for heading in shown))
    return table


def _seconds(result: Result) -> str | None:
    """Returns both times of the same interleaved runs: at another hour a machine may be busier."""
    time = result.time
    return f"{time.seconds:.3f} / {time.dense_seconds:.3f}" if time else None


def _with_interval(measured: Measured, form: str) -> str:
    return f"{measured.mean:{form}} [{measured.low:{form}}, {measured.high:{form}}]"


def _difference(result: Result) -> str | None:
    paired = result.ssim_minus_first
    return f"{paired.mean:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]" if paired else None


def _optional(result: Result, metric: str, form: str) -> str | None:
    measured = result.metrics.get(metric)
    return f"{measured.mean:{form}}" if measured else None


FORMAT, VERSION = "dipgo.evaluation", 1


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric: its value for every pair, and their mean with its confidence interval."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timed:
    """Median seconds a run of `time_batch` pictures, interleaved with dense's runs.

    `speedup` is the median of the ratios turn by turn, in `speedup_interval` with the probability
    `speedup_confidence`.
    """

    seconds: float
    dense_seconds: float
    speedup: float
    speedup_interval: tuple[float, float]
    speedup_confidence: float
    runs: tuple[float, ...]
    dense_runs: tuple[float, ...]

    @property
    def ratio(self) -> Ratio:
        """The speedup with its interval."""
        return Ratio(self.speedup, *self.speedup_interval, self.speedup_confidence, len(self.runs))


@dataclass(frozen=True, slots=True)
class Cost:
    """MACs a picture, and shares of the SubNet's own dense plan and of the evaluation's dense.

    Attention products are left out, as in the papers; `…_with_attention` includes them.
    """

    macs: int
    macs_with_attention: int
    macs_kept: float
    macs_kept_with_attention: float
    macs_of_dense: float
    macs_of_dense_with_attention: float


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of a SubNet or of dense.

    `metrics` are `ssim`, `psnr_db` and `latent_error` to dense, and if requested `caption`
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
    """An evaluation: its settings, dense, and every SubNet in the caller's order."""

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
        """Returns the report as JSON, with null for infinity (PSNR of equal pictures)."""
        head = {"format": FORMAT, "version": VERSION, "intervals": METHOD}
        return json.dumps(_finite({**head, **asdict(self)}), indent=1, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
