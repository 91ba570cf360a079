"""Plots an evaluation: likeness to dense against speedup, a labelled point for each SubNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from dipgo.common.staged import staged_file
from dipgo.evaluate.report import Report, Result

SIZE_INCHES, DPI = (8.0, 5.0), 150

LABEL_SIZE = 9

_AWAY = 8  # points from a label to its point

PLACES = tuple(
    (x * scale, y * scale, "left" if x > 0 else "right")
    for scale in (1, 2, 3, 4)
    for x, y in ((_AWAY, _AWAY), (_AWAY, -_AWAY - 6), (-_AWAY, -_AWAY - 6), (-_AWAY, _AWAY))
)
"""Places of a label: offsets in points, and the side of the label that faces its point."""


def save_plot(report: Report, path: Path) -> None:
    """Plots SSIM against measured speedup, both with intervals, or else share of dense's MACs."""
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    measured = report.dense.time is not None
    results = (report.dense, *report.subnets)
    points = [(_across(result), result.metrics["ssim"].mean) for result in results]
    colours = []
    for index, (result, (x, y)) in enumerate(zip(results, points, strict=True)):
        ssim = result.metrics["ssim"]
        errors = [[y - ssim.low], [ssim.high - y]]
        mark: dict[str, Any] = {"marker": "s", "color": "black"} if index == 0 else {"marker": "o"}
        across = _spread(result)
        drawn = axes.errorbar(x, y, yerr=errors, xerr=across, capsize=3, linestyle="", **mark)
        colours.append(drawn.lines[0].get_color())
    axes.set_xlabel(
        "measured speedup (dense / SubNet turn by turn: median, interval)"
        if measured
        else "MACs, share of dense's"
    )
    axes.set_ylabel("SSIM to dense (mean, 95 % interval)")
    axes.set_title(f"{report.model}: {len(report.pairs)} prompts and seeds")
    axes.grid(alpha=0.3)
    axes.margins(0.12)
    figure.draw_without_rendering()  # computes the places of points and labels
    _label(axes, [result.name for result in results], points, colours)
    with staged_file(path) as staging:
        figure.savefig(staging, format="png")


def _across(result: Result) -> float:
    return result.time.speedup if result.time else result.cost.macs_of_dense


def _spread(result: Result) -> list[list[float]] | None:
    """Returns how far the speedup's interval reaches to the left and to the right."""
    if not result.time:
        return None
    low, high = result.time.speedup_interval
    return [[result.time.speedup - low], [high - result.time.speedup]]


def _label(
    axes: Any, names: list[str], points: list[tuple[float, float]], colours: list[Any]
) -> None:
    """Labels each point in its colour, at the first place that is free and within the axes.

    A place is free if the label covers no point and no other label there.
    """
    taken = [_around(axes.transData.transform(point)) for point in points]
    for name, point, colour in zip(names, points, colours, strict=True):
        label = axes.annotate(
            name,
            point,
            (0, 0),
            textcoords="offset points",
            fontsize=LABEL_SIZE,
            color=colour,
        )
        for x, y, side in PLACES:
            label.set_position((x, y))
            label.set_horizontalalignment(side)
            box = label.get_window_extent()
            if not box.count_overlaps(taken) and axes.bbox.fully_containsx(box.x1):
                break
        taken.append(label.get_window_extent())


def _around(pixel: tuple[float, float]) -> Bbox:
    x, y = pixel
    return Bbox.from_extents(x - LABEL_SIZE, y - LABEL_SIZE, x + LABEL_SIZE, y + LABEL_SIZE)
