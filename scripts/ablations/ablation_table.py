"""The table of an ablation: a line a variant, and its paired difference to the first line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from dipgo.evaluate.metrics import interval
from scripts.harness import make_table

COLUMNS = ("search s", "kept", "evaluations", "log10 MSE", "- first's", "PSNR dB", "SSIM")


def ablation_table(rows: Mapping[str, Any]) -> Table:
    """Means over the held-out pairs; in brackets where they lie with 95 % confidence.

    What went wrong where a search failed stands below.
    """
    setup = next(iter(rows.values()))["setup"]
    measured = [row for row in rows.values() if "metrics" in row]
    lines = [
        (name, *(_cells(row, measured[0]) if "metrics" in row else ("failed",)))
        for name, row in rows.items()
    ]
    title = "{model}, {scheduler} {steps} steps, kept {target}, {pairs} pairs".format(**setup)
    table = make_table(title, ("", *COLUMNS), lines)
    failed = {name: row["error"] for name, row in rows.items() if "error" in row}
    if failed:
        table.caption = "\n".join(f"{name}: {error}" for name, error in failed.items())
    return table


def _cells(row: Any, first: Any) -> tuple[str, ...]:
    metrics = row["metrics"]
    return (
        f"{row['search_seconds']:.0f}",
        f"{row['kept']:.4f}",
        str(row["evaluations"]),
        _mean(metrics["log10_mse"], ".3f"),
        "" if row is first else _difference(metrics, first["metrics"]),
        _mean(metrics["psnr_db"], ".2f"),
        _mean(metrics["ssim"], ".4f"),
    )


def _mean(found: Any, form: str) -> str:
    if found["mean"] is None:
        return "inf"
    return f"{found['mean']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def _difference(metrics: Any, first: Any) -> str:
    """Of log10 MSE, pair by pair: below 0 is nearer to dense than the first."""
    values, others = (np.array(one["log10_mse"]["values"]) for one in (metrics, first))
    found = interval(values - others)
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
