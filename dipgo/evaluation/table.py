"""The table of an evaluation: a line for dense and for every SubNet, a column a figure."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from dipgo.evaluation.report import Measured, Report, Result

Cell = Callable[[Result], str | None]

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
