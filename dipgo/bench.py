"""`python -m dipgo.bench OUT [--against dense|OTHER] [--json FILE]`."""

from __future__ import annotations

import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dipgo.common.cli import Parser, refuse_idle, run_command, whole_number
from dipgo.common.errors import setting
from dipgo.common.files import check_file_destination
from dipgo.common.machine import describe_machine
from dipgo.common.progress import progress_bar, stage
from dipgo.common.staged import scratch_folder
from dipgo.common.typed_json import write_text
from dipgo.compiler.settings import DENSE
from dipgo.engines import Runner, load
from dipgo.engines.comparable import check_comparable
from dipgo.engines.contents import check_outside_exports
from dipgo.engines.options import add_target_arguments, target_options
from dipgo.engines.ratios import ENOUGH_PAIRS, Ratio, paired_ratio
from dipgo.engines.targets import target_to_export
from dipgo.engines.timing import Timing, ideal_speedup, time_runners
from dipgo.ir.plan.cost import block_calls, plan_cost
from dipgo.ir.plan.plan import evaluations


def main(arguments: list[str]) -> None:
    """Times an export, or two interleaved, and prints a table."""
    _parser().run(_bench, arguments)


def _bench(options: Namespace) -> None:
    if options.against != DENSE:
        remedy = f"add {setting('against')} dense, or leave it out"
        refuse_idle(options, ("model",), "where no dense twin is made", remedy)
    if options.json:
        check_file_destination(options.json)
        check_outside_exports(options.json)
    with _other(options) as other:
        paths = {"this": options.out} | ({"against": other} if other else {})
        with stage("load the engines"):
            runners = {name: _load(path, name, options) for name, path in paths.items()}
        if other:
            check_comparable(*(runner.export for runner in runners.values()))
        timings = _measure(runners, options.warmup, options.repeats)
    report = make_report(runners, timings)
    if options.json:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    _print(report)


def _load(path: Path, name: str, options: Any) -> Runner:
    """Loads a runner; a dense twin is made for the requested size, and has no other."""
    settings = target_options(options)
    if name == "against" and options.against == DENSE:
        settings["size"] = ""
    return load(path, **settings)


@contextmanager
def _other(options: Any) -> Iterator[Path | None]:
    """Yields the export to compare with; a dense twin is exported to a temporary directory."""
    if options.against != DENSE:
        yield Path(options.against) if options.against else None
        return
    with scratch_folder() as folder:
        yield _export_dense_twin(options, folder / "dense")


def _export_dense_twin(options: Any, out: Path) -> Path:
    from dipgo.export.dense_twin import export_dense_twin

    target = target_to_export(options.target, options.provider)
    return export_dense_twin(options.out, options.model, out, stage, target, options.size)


def _measure(runners: dict[str, Runner], warmup: int, repeats: int) -> dict[str, Timing]:
    total = len(runners) * (warmup + repeats)
    done = itertools.count(1)
    with progress_bar(f"time {total} runs", total) as advance_to:
        return time_runners(
            runners, warmup=warmup, repeats=repeats, on_run=lambda: advance_to(next(done))
        )


def make_report(runners: dict[str, Runner], timings: dict[str, Timing]) -> dict[str, Any]:
    """Returns all figures, ready for JSON; times are in seconds, medians of the runs.

    The speedup is the median of the ratios turn by turn, with its interval.
    """
    report: dict[str, Any] = {"machine": describe_machine()}
    for name, runner in runners.items():
        plan, timing = runner.export.plan, timings[name]
        cost = plan_cost(plan)
        report[name] = {
            "model": runner.export.manifest.model.source,
            "steps": len(plan.steps),
            "evaluations": evaluations(plan),
            "block_calls": block_calls(plan),
            "segments": len(plan.callees),
            "macs_kept": cost.kept,
            "macs_kept_with_attention": cost.kept_with_attention,
            "seconds": timing.total,
            "seconds_by_segment": timing.segments,
            "runs": list(timing.runs),
            "overhead": timing.overhead,
        }
    if "against" in runners:
        measured = paired_ratio(timings["against"].runs, timings["this"].runs)
        ideal = ideal_speedup(runners["this"], runners["against"])
        retention = measured.over(ideal)
        report["speedup"] = {
            "ideal": ideal,
            "measured": measured.median,
            "measured_interval": [measured.low, measured.high],
            "retention": retention.median,
            "retention_interval": [retention.low, retention.high],
            "confidence": measured.confidence,
            "turns": measured.pairs,
        }
    return report


def speedup_of(report: dict[str, Any]) -> tuple[Ratio, Ratio]:
    """Returns the measured speedup and the retention of a report, with their intervals."""
    speedup = report["speedup"]
    low, high = speedup["measured_interval"]
    measured = Ratio(speedup["measured"], low, high, speedup["confidence"], speedup["turns"])
    return measured, measured.over(speedup["ideal"])


def _print(report: dict[str, Any]) -> None:
    machine = report["machine"]
    console = Console()
    console.print("  ".join(f"{key} {value}" for key, value in machine.items()), style="dim")
    table = Table()
    columns = [name for name in ("this", "against") if name in report]
    for heading in ("", *columns):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = (
        ("model", "{}"),
        ("steps", "{}"),
        ("evaluations", "{}"),
        ("block_calls", "{}"),
        ("segments", "{}"),
        ("macs_kept", "{:.4f}"),
        ("macs_kept_with_attention", "{:.4f}"),
        ("seconds", "{:.3f}"),
        ("overhead", "{:.3%}"),
    )
    for key, form in rows:
        table.add_row(key.replace("_", " "), *(form.format(report[name][key]) for name in columns))
    console.print(table)
    if "speedup" in report:
        measured, retention = speedup_of(report)
        console.print(
            f"speedup: ideal {report['speedup']['ideal']:.3f}×, "
            f"measured {measured.text('.3f', '×')}, retention {retention.text('.3f')}",
            f"({measured.note()})",
            highlight=False,
            markup=False,
        )


def _parser() -> Parser:
    parser = Parser(
        "dipgo.bench",
        description="Times an export, alone or against another.",
        examples=(
            "python -m dipgo.bench OUT",
            "python -m dipgo.bench OUT --against dense --model M --json times.json",
        ),
    )
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="export directory")
    add = parser.group("comparison").add_argument
    add(
        "--against",
        metavar="dense|OTHER",
        help="another export; dense: the same model with every gate on, exported on the way",
    )
    add("--model", metavar="M", help="the model for --against dense (an arch:NAME is known)")
    add = parser.group("measurement").add_argument
    add("--repeats", type=whole_number(1), default=ENOUGH_PAIRS, help="measured runs of each (6)")
    add("--warmup", type=whole_number(0), default=1, help="runs before them (1)")
    add("--json", type=Path, metavar="FILE", help="where to write all figures")
    add_target_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
