"""The searched SubNets against every rival at the same share of dense's MACs, on the demo model.

    python -m scripts.generate.reference_pictures out/reference --pictures 1000
    python -m scripts.benchmarks.compare_methods [--schedulers ddim] [--kept 0.2 0.1] [--pairs 256]

For every scheduler and kept share it makes the SubNets that are not in --dir yet, draws the same
held-out pairs with each on ONNX Runtime and times them. It writes a report of each table with the
figures of every pair (DIR/ddim-0.20.report.json), a plot a scheduler (DIR/ddim.png), and all
tables as JSON and as Markdown. A run that was stopped goes on where it was; --methods are rivals,
for the searched SubNets are always compared.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from dipgo.common.cli import Parser, whole_number
from dipgo.common.errors import DipgoError
from dipgo.common.files import read_prompts
from dipgo.common.packages import silence_libraries
from dipgo.common.progress import progress_bar, stage
from dipgo.common.typed_json import write_text
from dipgo.evaluate.api import evaluate
from dipgo.evaluate.draw import Progress
from scripts.benchmarks.comparison.make import RIVALS, SAMPLERS, Maker
from scripts.benchmarks.comparison.plot import save_plot
from scripts.benchmarks.comparison.tables import make_table, to_markdown
from scripts.harness import (
    DEMO,
    ROOT,
    add_json,
    add_threads,
    new_report,
    run_script,
    script_parser,
    write_report,
)

GUIDANCE = 5.0
KEPT = (0.5, 0.35, 0.2, 0.1)


def main(arguments: list[str]) -> None:
    """Makes, draws, measures, and writes after every table."""
    options = _parser().parse_args(arguments)
    silence_libraries()
    _check(options)
    options.dir.mkdir(parents=True, exist_ok=True)
    tables: list[dict[str, Any]] = []
    for sampler in options.schedulers:
        maker = Maker(
            DEMO / "model",
            sampler,
            read_prompts(DEMO / "search-prompts.txt"),
            GUIDANCE,
            options.dir,
        )
        for kept in options.kept:
            tables.append(compare(maker, kept, options))
            print(to_markdown(tables[-1]), flush=True)
            _write(tables, options)
            of_sampler = [table for table in tables if table["sampler"] == sampler]
            save_plot(of_sampler, options.pairs, options.dir / f"{sampler}.png")


def compare(maker: Maker, kept: float, options: Namespace) -> dict[str, Any]:
    """One table. Raises DipgoError."""
    sampler = maker.sampler
    print(f"== {sampler}, kept {kept:g}", file=sys.stderr, flush=True)
    subnets, unreachable = maker.make(options.methods, kept)
    scheduler, steps = SAMPLERS[sampler]
    report = evaluate(
        maker.model,
        subnets,
        (steps, scheduler),
        read_prompts(DEMO / "prompts.txt"),
        cache=options.dir / f"cache-{sampler}",
        pairs=options.pairs,
        guidance_scale=GUIDANCE,
        batch=options.batch,
        classifier=DEMO / "classifier",
        reference=options.reference,
        time_repeats=0 if options.no_time else options.time_repeats,
        time_batch=options.time_batch,
        threads=options.threads,
        progress=Progress(stage, progress_bar),
    )
    write_text(options.dir / f"{sampler}-{kept:.2f}.report.json", report.to_json())
    return make_table(report, unreachable, sampler, kept)


def _write(tables: list[dict[str, Any]], options: Namespace) -> None:
    path = options.json or options.dir / "comparison.json"
    report = new_report(
        model="examples/demo/model",
        guidance=GUIDANCE,
        pairs=options.pairs,
        batch=options.batch,
        threads=options.threads,
        time_repeats=0 if options.no_time else options.time_repeats,
        time_batch=options.time_batch,
        tables=tables,
    )
    write_report(path, report)
    write_text(path.with_suffix(".md"), "\n".join(map(to_markdown, tables)))


def _check(options: Namespace) -> None:
    """Before the hours of work begin. Raises DipgoError."""
    if not options.reference.is_dir():
        raise DipgoError(
            "--reference",
            found=f"no folder {options.reference}",
            expected="reference pictures for Fréchet distances",
            remedy=f"run python -m scripts.generate.reference_pictures {options.reference}",
        )


def _parser() -> Parser:
    parser = script_parser(__file__, __doc__)
    add, count = parser.add_argument, whole_number(1)
    names, out = tuple(SAMPLERS), ROOT / "out"
    add("--schedulers", nargs="+", choices=names, default=names, help="(all)")
    add("--kept", nargs="+", type=float, default=KEPT, metavar="R", help="shares of the cost")
    add("--methods", nargs="+", choices=RIVALS, default=RIVALS, help="rivals (all)")
    add("--pairs", type=whole_number(2), default=256, metavar="N", help="held-out pairs (256)")
    add("--batch", type=count, default=32, metavar="N", help="pictures a run (32)")
    add("--time-repeats", type=count, default=3, metavar="N", help="measured runs (3)")
    add("--time-batch", type=count, default=4, metavar="N", help="pictures a timed run (4)")
    add("--no-time", action="store_true", help="do not time")
    add_threads(parser)
    add("--reference", type=Path, default=out / "reference", metavar="DIR", help="PNG files")
    add("--dir", type=Path, default=out / "search", metavar="DIR", help="SubNets, cache, plots")
    add_json(parser, what="tables (DIR/comparison.json)")
    return parser


if __name__ == "__main__":
    run_script(main)
