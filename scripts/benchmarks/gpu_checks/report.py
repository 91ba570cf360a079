"""The report on a terminal; the JSON holds more."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.gpu_checks.settings import FAILED, SKIPPED
from scripts.harness import make_table, print_machine

MIB = 1 << 20


def print_report(report: dict[str, Any]) -> None:
    """Machine, what is not installed, parity, a table of figures, speedups."""
    console = Console()
    print_machine(report["machine"])
    for target, reason in report["left_out"].items():
        console.print(f"{target}: {reason}", highlight=False)
    if report["parity"]:
        console.print(_parity(report["parity"]))
    if report["models"]:
        console.print(_speed(report["models"]))
    for name, found in report["models"].items():
        console.print(_speedup(name, found), highlight=False)


def _parity(parity: dict[str, Any]) -> Table:
    headings = ("case", "path", "errors at two guidance scales", "change between them")
    rows = []
    for name, case in parity["cases"].items():
        for path, figures in case.get("paths", {"": case}).items():
            errors = [f"{one:.1e}" for key, one in figures.items() if key.startswith("error")]
            change = figures.get("change_between_scales")
            row = (" ".join(errors), "" if change is None else f"{change:.1e}")
            rows.append((name, path, *_or_reason(figures, row)))
    title = f"fp16 against the oracle, relative L2 (tolerance {parity['tolerance']:g})"
    return make_table(title, headings, rows, texts=len(headings))


def _speed(models: dict[str, Any]) -> Table:
    headings = ("model", "path", "device s", "wall s", "host between calls", "device MiB")
    rows = [
        (name, path, *_or_reason(figures, _figures(figures)))
        for name, found in models.items()
        for path, figures in found.get("measurements", {}).items() or [("", found)]
    ]
    return make_table("a trajectory, batch 1 with guidance, fp16: medians", headings, rows, texts=2)


def _figures(figures: dict[str, Any]) -> tuple[str, ...]:
    if "device_seconds" not in figures:
        return ()
    return (
        f"{figures['device_seconds']:.4f}",
        f"{figures['wall_seconds']:.4f}",
        f"{figures['host_time_between_calls']:.2%}",
        f"{figures['device_memory_nbytes'] / MIB:.0f}",
    )


def _or_reason(figures: dict[str, Any], row: tuple[str, ...]) -> tuple[str, ...]:
    for key in (FAILED, SKIPPED):
        if key in figures:
            return (f"{key}: {figures[key]}",)
    return row


def _speedup(name: str, found: dict[str, Any]) -> str:
    speedups = dict(found.get("speedups", {}))
    if not speedups:
        return f"{name}: no speedup, as not both were measured"
    ideal = speedups.pop("ideal")
    by_path = ", ".join(
        f"{target} {one['measured']:.3f}× (retention {one['retention']:.3f})"
        for target, one in speedups.items()
    )
    measured = f"measured, one after the other: {by_path or 'none'}"
    return f"{name}: speedup by MACs {ideal:.3f}×; {measured}"
