"""`python -m dipgo.evaluate --model M --subnets A.json B.json … --prompts FILE --out DIR`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from dipgo.common.cli import Parser, refuse_idle, run_command
from dipgo.common.errors import DipgoError
from dipgo.common.files import check_folder_destination, check_no_result
from dipgo.common.options import add_options
from dipgo.common.packages import command_packages
from dipgo.common.progress import progress_bar, stage
from dipgo.common.typed_json import write_text
from dipgo.compiler.settings import ScheduleSettings
from dipgo.evaluate.settings import COMPARISON, TIMES, EvaluationSettings
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.options import add_model

if TYPE_CHECKING:
    from dipgo.evaluate.report import Report


REPORT_FILE, PLOT_FILE, CACHE_FOLDER = "report.json", "plot.png", "cache"

TABLE_WIDTH = 185
"""Columns that the table needs, also where the output is not a terminal."""


def main(arguments: list[str]) -> None:
    """Evaluates, prints a table, and writes the report and the plot."""
    _parser().run(_run, arguments)


def _run(options: Namespace) -> None:
    check_folder_destination(options.out)
    for name in (REPORT_FILE, PLOT_FILE):
        check_no_result(options.out / name, options.force)
    subnets = _read_subnets(options.subnets)
    report = _evaluate(options, subnets)
    _write(report, options.out)
    _print(report)


def _evaluate(options: Namespace, subnets: dict[str, SubNet]) -> Report:
    with command_packages("dipgo.evaluate", "an evaluation", "cpu,export,search"):
        import dipgo.evaluate.plot  # noqa: F401  before the long run, not after it
        from dipgo.common.files import read_prompts
        from dipgo.evaluate.api import evaluate
        from dipgo.evaluate.draw import Progress
    names = {item.name for item in fields(EvaluationSettings)} & options.changed
    settings = {name: getattr(options, name) for name in names}
    if options.no_time:
        refuse_idle(options, ("time_repeats", "time_batch"), "with --no-time")
        settings["time_repeats"] = 0
    return evaluate(
        options.model,
        subnets,
        _dense(options, next(iter(subnets.values()))),
        read_prompts(options.prompts),
        cache=options.out / CACHE_FOLDER,
        progress=Progress(stage, progress_bar),
        **settings,
    )


def _dense(options: Namespace, first: SubNet) -> tuple[int, str | None]:
    """Returns dense's steps and scheduler, as the options say or else as the first SubNet has."""
    own = first.scheduler.class_name if first.scheduler else None
    steps = first.num_inference_steps if options.steps is None else options.steps
    return steps, options.scheduler or own


def _read_subnets(paths: Sequence[Path]) -> dict[str, SubNet]:
    """Reads SubNets by the names of their files, or by their paths where two names are equal."""
    if len(set(paths)) < len(paths):
        raise DipgoError(
            "--subnets",
            found="one file named twice",
            expected="every SubNet once",
            remedy="leave the second out",
        )
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, paths, strict=True)
    ]
    return {name: SubNet.load(path) for name, path in zip(names, paths, strict=True)}


def _write(report: Report, out: Path) -> None:
    from dipgo.evaluate.plot import save_plot

    save_plot(report, out / PLOT_FILE)
    write_text(out / REPORT_FILE, report.to_json())


def _print(report: Report) -> None:
    from dipgo.evaluate.report import make_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print("  ".join(f"{key} {value}" for key, value in report.machine.items()), style="dim")
    console.print(make_table(report))


def _parser() -> Parser:
    parser = Parser(
        "dipgo.evaluate",
        description="Quality of SubNets against dense.",
        examples=(
            "python -m dipgo.evaluate --model M --subnets A.json B.json --prompts FILE --out DIR",
        ),
    )
    add_model(parser, help="pipeline directory or Hub id")
    add = parser.group(COMPARISON).add_argument
    add("--subnets", required=True, nargs="+", type=Path, metavar="FILE", help="SubNet files")
    add("--prompts", required=True, type=Path, metavar="FILE", help="held-out prompts, one a line")
    add_options(parser, EvaluationSettings)
    add_options(parser, ScheduleSettings, only=("steps", "scheduler"))
    add = parser.group(TIMES).add_argument
    add("--no-time", action="store_true", help="do not time; plot against MACs")
    add = parser.group("output").add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="folder of report, plot and cache")
    add("--force", action="store_true", help="replace a report and a plot that are there (off)")
    parser.rename("--guidance", "--guidance-scale")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
