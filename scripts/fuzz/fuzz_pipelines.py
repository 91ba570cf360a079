"""Draws pipelines of diffusers, exports each and compares its pictures with diffusers' own.

    python -m scripts.fuzz.fuzz_pipelines --draws 1000
    python -m scripts.fuzz.fuzz_pipelines --minutes 30 --first 5000
    python -m scripts.fuzz.fuzz_pipelines --seeds 17 203 --shrink

A seed is a draw. The exit code is 1 if an export gives another picture than diffusers, or fails
with anything but one clear line.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from dipgo.common.cli import whole_number
from scripts.fuzz.draws import draw_case
from scripts.fuzz.shrink import shrink
from scripts.fuzz.trial import Outcome, Verdict, try_draw
from scripts.harness import add_json, new_report, run_script, script_parser, write_report

MOST_REASONS = 10
FREE = r"\d[\d.e+-]*|'[^']*'|\"[^\"]*\"|/\S+"
"""Parts of a reason that differ from draw to draw: numbers, names, paths."""


def _try_seed(seed: int) -> tuple[int, Outcome, float]:
    import torch

    torch.set_num_threads(1)
    begin = time.perf_counter()
    return seed, try_draw(draw_case(seed)), time.perf_counter() - begin


def fuzz(options: Namespace) -> Iterator[tuple[int, Outcome, float]]:
    """Yields the outcome of each seed, as soon as it is there."""
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    seeds = iter(options.seeds or range(options.first, options.first + options.draws))
    context = get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, max_tasks_per_child=50) as pool:
        waiting = {pool.submit(_try_seed, seed) for seed in islice(seeds, 2 * options.jobs)}
        while waiting:
            done = next(as_completed(waiting))
            waiting.remove(done)
            yield done.result()
            if time.monotonic() < end and (seed := next(seeds, None)) is not None:
                waiting.add(pool.submit(_try_seed, seed))


def summary(outcomes: dict[int, Outcome]) -> dict[str, Any]:
    """Returns how many draws went which way, and the most frequent reasons of refusals."""
    counts = Counter(outcome.verdict for outcome in outcomes.values())
    reasons = Counter(
        re.sub(FREE, "…", outcome.reason)
        for outcome in outcomes.values()
        if outcome.verdict is Verdict.REFUSED
    )
    errors = [outcome.error for outcome in outcomes.values() if outcome.verdict is Verdict.AGREES]
    return {
        "draws": len(outcomes),
        "verdicts": {verdict.value: counts[verdict] for verdict in Verdict},
        "largest_error": max((error for error in errors if error is not None), default=None),
        "refusals": [list(pair) for pair in reasons.most_common(MOST_REASONS)],
        "faults": {
            str(seed): f"{outcome.verdict.value}: {outcome.reason}"
            for seed, outcome in sorted(outcomes.items())
            if outcome.verdict.bad
        },
    }


def main(arguments: list[str]) -> None:
    """Runs the draws, prints faults as they come, and the summary."""
    parser = script_parser(__file__, __doc__)
    add = parser.add_argument
    add("--draws", type=whole_number(1), default=10**9, metavar="N", help="draws (no limit)")
    add("--first", type=whole_number(0), default=0, metavar="SEED", help="first seed (0)")
    add("--seeds", type=whole_number(0), nargs="+", metavar="SEED", help="these draws alone")
    add("--minutes", type=whole_number(1), metavar="N", help="stop after this time")
    add("--jobs", type=whole_number(1), default=2, metavar="N", help="processes (2)")
    add("--shrink", action="store_true", help="make faults smaller")
    add("--log", type=Path, metavar="FILE", help="append a line for each draw")
    add_json(parser)
    options = parser.parse_args(arguments)
    console, outcomes = Console(soft_wrap=True), dict[int, Outcome]()
    for seed, outcome, seconds in fuzz(options):
        outcomes[seed] = outcome
        line = f"{seed}\t{outcome.verdict.value}\t{outcome.error}\t{seconds:.1f}\t{outcome.reason}"
        if options.log:
            with options.log.open("a") as file:
                file.write(line + "\n")
        if outcome.verdict.bad:
            console.print(f"seed {seed}: {outcome.verdict.value}: {outcome.reason}", markup=False)
            if options.shrink:
                smaller, its = shrink(draw_case(seed), outcome)
                console.print(f"  smallest: {smaller}\n  {its.reason}", markup=False)
    figures = summary(outcomes)
    for verdict, count in figures["verdicts"].items():
        console.print(f"{count:6} {verdict}")
    for reason, count in figures["refusals"]:
        console.print(f"{count:6} × {reason}", markup=False)
    write_report(options.json, new_report(seeds=sorted(outcomes), **figures))
    if figures["faults"]:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
