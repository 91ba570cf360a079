"""The plot of one sampler's tables: distance to dense against MACs kept, a line a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dipgo.common.staged import staged_file
from scripts.benchmarks.comparison.make import SEARCHED

SIZE_INCHES, DPI = (9.0, 5.5), 150
MARKERS = "osv^<>DPX*hpd"
LEAST = 1e-5
"""What a distance of 0 is drawn as: a logarithm has no 0."""


def save_plot(tables: Sequence[dict[str, Any]], pairs: int, path: Path) -> None:
    """1 − SSIM with 95 % intervals, on a logarithmic axis; lower is nearer to dense."""
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (method, rows) in enumerate(_by_method(tables).items()):
        style: dict[str, Any] = {"color": f"C{index % 10}", "linewidth": 1.0, "alpha": 0.8}
        if method == SEARCHED:
            style = {"color": "black", "linewidth": 2.5, "zorder": 10}
        across = [row["macs_of_dense"] for row in rows]
        marker = MARKERS[index % len(MARKERS)]
        means, errors = _distances(rows)
        axes.errorbar(
            across, means, errors, capsize=2, marker=marker, markersize=5, label=method, **style
        )
    axes.set_yscale("log")
    axes.set_xlabel("MACs, share of dense's")
    axes.set_ylabel("1 − SSIM to dense (mean, 95 % interval); lower is nearer")
    axes.set_title(f"{tables[0]['scheduler']}, {tables[0]['steps']} steps: {pairs} pairs")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8)
    with staged_file(path) as staging:
        figure.savefig(staging, format="png")


def _by_method(tables: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each method by the share kept."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        for row in table["subnets"]:
            found.setdefault(row["method"], []).append(row)
    return {
        method: sorted(rows, key=lambda row: float(row["macs_of_dense"]))
        for method, rows in found.items()
    }


def _distances(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[list[float]]]:
    """1 − SSIM of each row, and how far its interval goes below and above."""
    means, lows, highs = (
        [max(LEAST, 1 - row["ssim"][name]) for row in rows] for name in ("mean", "high", "low")
    )
    below = [mean - low for mean, low in zip(means, lows, strict=True)]
    above = [high - mean for mean, high in zip(means, highs, strict=True)]
    return means, [below, above]
