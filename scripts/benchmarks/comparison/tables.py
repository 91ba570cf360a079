"""One table of the comparison: plain data of a report, and that as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dipgo.evaluate.report import Measured, Report, Result
from scripts.benchmarks.comparison.make import SEARCHED, Unreachable

HEADINGS = (
    "method",
    "MACs of dense",
    "evaluations",
    "speedup",
    "SSIM",
    "PSNR dB",
    "latent error",
    "captions",
    "Fréchet",
    "SSIM, searched − this",
)


def make_table(
    report: Report, unreachable: Sequence[Unreachable], sampler: str, kept: float
) -> dict[str, Any]:
    """Figures of dense and of every SubNet, without those of each pair."""
    has_searched = report.subnets[0].name == SEARCHED
    return {
        "sampler": sampler,
        "scheduler": report.dense.scheduler,
        "steps": report.dense.steps,
        "kept": kept,
        "dense": _row(report.dense, False),
        "subnets": [_row(one, has_searched) for one in report.subnets],
        "unreachable": [asdict(one) for one in unreachable],
    }


def _row(result: Result, has_searched: bool) -> dict[str, Any]:
    """The report has the difference to its first SubNet, the searched one: here it is turned."""
    difference = result.ssim_minus_first if has_searched else None
    time = result.time
    return {
        "method": result.name,
        "macs_of_dense": result.cost.macs_of_dense,
        "evaluations": result.evaluations,
        "speedup": time and time.speedup,
        "speedup_interval": time and list(time.speedup_interval),
        "speedup_confidence": time and time.speedup_confidence,
        "seconds": time and time.seconds,
        "dense_seconds": time and time.dense_seconds,
        **{name: _means(one) for name, one in result.metrics.items()},
        "frechet": result.frechet,
        "searched_minus_this": difference
        and {"mean": -difference.mean, "low": -difference.high, "high": -difference.low},
    }


def _means(measured: Measured) -> dict[str, float | None]:
    """Null for what is infinite."""
    figures = {"mean": measured.mean, "low": measured.low, "high": measured.high}
    return {name: one if np.isfinite(one) else None for name, one in figures.items()}


def to_markdown(table: dict[str, Any]) -> str:
    """The table under a heading, and a line on how many intervals exclude zero."""
    unreachable = [_unreachable_line(one) for one in table["unreachable"]]
    lines = [
        f"### {table['scheduler']}, {table['steps']} steps, kept {table['kept']:g}",
        "",
        _line(HEADINGS),
        _line(["---", *["---:"] * (len(HEADINGS) - 1)]),
        *(_line(_cells(row)) for row in (table["dense"], *table["subnets"])),
        *unreachable,
        "",
        verdict(table),
        "",
    ]
    return "\n".join(lines)


def verdict(table: dict[str, Any]) -> str:
    """For how many rivals the interval of the paired difference excludes zero, either way."""
    found = [
        row["searched_minus_this"]
        for row in table["subnets"]
        if row["searched_minus_this"] and not row["method"].startswith(SEARCHED)
    ]
    better = sum(one["low"] > 0 for one in found)
    worse = sum(one["high"] < 0 for one in found)
    return (
        f"Of {len(found)} rivals, the 95 % interval of the paired difference in SSIM excludes zero "
        f"for {better + worse}: the searched SubNet is nearer to dense than {better}, farther "
        f"than {worse}."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["method"],
        f"{row['macs_of_dense']:.4f}",
        str(row["evaluations"]),
        _speedup(row),
        _plus_minus(row["ssim"], ".4f"),
        _plain(row["psnr_db"], ".2f"),
        _plain(row["latent_error"], ".4f"),
        _plain(row["caption"], ".1%") if "caption" in row else "",
        "" if row["frechet"] is None else f"{row['frechet']:.3f}",
        _with_interval(row["searched_minus_this"]),
    ]


def _speedup(row: dict[str, Any]) -> str:
    """The median of paired ratios with its interval; tables made before have ratios of medians."""
    if not row["speedup"]:
        return ""
    low, high = row.get("speedup_interval") or (None, None)
    interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    return f"{row['speedup']:.2f}×{interval}"


def _plain(found: dict[str, Any], form: str) -> str:
    return "inf" if found["mean"] is None else f"{found['mean']:{form}}"


def _plus_minus(found: dict[str, Any], form: str) -> str:
    """The mean ± half of the interval's width."""
    if found["mean"] is None:
        return "inf"
    return f"{found['mean']:{form}} ± {(found['high'] - found['low']) / 2:{form}}"


def _with_interval(found: dict[str, float] | None) -> str:
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]" if found else ""


def _unreachable_line(one: dict[str, Any]) -> str:
    why = one["error"] if one["floor"] is None else f"not below {one['floor']:.3f}"
    return _line([one["method"], why, *[""] * (len(HEADINGS) - 2)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
