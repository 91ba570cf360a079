"""Threads and processes that share one export: the same pictures, and how many a second.

    python -m scripts.benchmarks.measure_threads OUT [--threads-at-once N] [--pictures N]
        [--rounds N] [--json FILE]

OUT is an export of a whole pipeline. The same prompts and seeds are drawn by one thread, by
threads that share one pipeline with one or several clones, and by processes with an export each;
all ways are measured interleaved, after a round that is not measured. Exit code 1 if a picture
differs from that of one thread with as many engine threads.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from dipgo.common.cli import whole_number
from dipgo.engines.ratios import paired_ratio
from dipgo.run.pipeline import Pipeline
from scripts.harness import add_json, new_report, run_script, script_parser, write_report

_PIPELINE: list[Pipeline] = []
"""The pipeline of a process of a pool."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to draw all pictures: `draw` returns a hash of each, in order."""

    threads: int
    """Threads of an engine; 0 stands for every core."""
    draw: Callable[[Sequence[int]], list[str]]


def main(arguments: list[str]) -> None:
    """Prints the figures and writes them."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="export directory")
    add = parser.group("measurement").add_argument
    add("--threads-at-once", type=whole_number(2), default=8, metavar="N", help="also processes")
    add("--pictures", type=whole_number(1), default=32, metavar="N", help="drawn in each way (32)")
    add("--rounds", type=whole_number(1), default=5, metavar="N", help="of all ways (5)")
    add_json(parser)
    options = parser.parse_args(arguments)
    count, seeds = options.threads_at_once, range(options.pictures)
    spawn = multiprocessing.get_context("spawn")
    expected = {threads: _one_thread(options.out, threads) for threads in (0, 1)}
    with (
        ThreadPoolExecutor(count) as threads,
        ProcessPoolExecutor(count, spawn, _open, (options.out,)) as processes,
    ):
        ways = {
            "one thread, an engine on every core": Way(0, expected[0]),
            "one thread, an engine on one core": Way(1, expected[1]),
            f"{count} threads, one clone": Way(0, _sharing(options.out, threads, 0, 1)),
            f"{count} threads, two clones": Way(1, _sharing(options.out, threads, 1, 2)),
            f"{count} threads, {count} clones": Way(1, _sharing(options.out, threads, 1, count)),
            f"{count} processes": Way(1, lambda seeds: list(processes.map(_draw, seeds))),
        }
        hashes = {threads: draw(seeds) for threads, draw in expected.items()}
        wrong, times = _measure(ways, hashes, seeds, options.rounds)
    report = new_report(export=options.out.name, pictures=len(seeds), wrong=wrong, seconds=times)
    report["pictures_a_second"] = {
        name: len(seeds) / statistics.median(runs) for name, runs in times.items()
    }
    first, *_ = times.values()
    report["over_one_thread"] = {
        name: asdict(paired_ratio(first, runs)) for name, runs in times.items()
    }
    printed = {name: paired_ratio(first, runs).text(".2f", "×") for name, runs in times.items()}
    figures = {"pictures_a_second": report["pictures_a_second"], "over_one_thread": printed}
    print(json.dumps(figures | {"wrong": wrong}, indent=1, ensure_ascii=False))
    write_report(options.json, report)
    if any(wrong.values()):
        sys.exit(1)


def _measure(
    ways: dict[str, Way], hashes: dict[int, list[str]], seeds: Sequence[int], rounds: int
) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Returns the number of wrong pictures, and the seconds of each round, by way."""
    wrong = dict.fromkeys(ways, 0)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name, way in ways.items():
            began = perf_counter()
            drawn = way.draw(seeds)
            if index:  # processes may still load during the first round
                times[name].append(perf_counter() - began)
            pairs = zip(drawn, hashes[way.threads], strict=True)
            wrong[name] += sum(found != expected for found, expected in pairs)
    return wrong, times


def _one_thread(out: Path, threads: int) -> Callable[[Sequence[int]], list[str]]:
    pipeline = Pipeline.from_export(out, threads=threads)
    _picture(pipeline, 0)
    return lambda seeds: [_picture(pipeline, seed) for seed in seeds]


def _sharing(
    out: Path, pool: ThreadPoolExecutor, threads: int, clones: int
) -> Callable[[Sequence[int]], list[str]]:
    pipeline = Pipeline.from_export(out, threads=threads, clones=clones)
    _picture(pipeline, 0)
    return lambda seeds: list(pool.map(lambda seed: _picture(pipeline, seed), seeds))


def _picture(pipeline: Pipeline, seed: int) -> str:
    """Draws the picture of a seed and returns its hash."""
    images: Any = pipeline(f"picture {seed}", seed=seed, output_type="np").images
    return hashlib.sha256(images.tobytes()).hexdigest()


def _open(out: Path) -> None:
    """Begins a process of a pool."""
    _PIPELINE.append(Pipeline.from_export(out, threads=1))
    _picture(_PIPELINE[0], 0)


def _draw(seed: int) -> str:
    return _picture(_PIPELINE[0], seed)


if __name__ == "__main__":
    run_script(main)
