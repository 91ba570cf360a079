"""Damages exports and SubNets, has every command read each, and sees that none does harm.

    python -m scripts.fuzz.fuzz_exports --mutants 2000 --json FILE
    python -m scripts.fuzz.fuzz_exports --seeds 17 203

A seed is a mutant. It may be taken or refused in one line; the exit code is 1 if one ran code, read
or wrote outside its folder, ended in a traceback or a signal, or took more than 30 s or 2 GiB.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from dipgo.common.cli import run_command, whole_number
from dipgo.ir.manifest.engines import ENGINES_FOLDER
from scripts.fuzz.damaged_exports import damage
from scripts.fuzz.damaged_subnets import damage_subnet, write_subnets
from scripts.fuzz.sandbox import REFUSED, Limits, Report, watch
from scripts.harness import ROOT, add_json, new_report, run_script, script_parser, write_report

SUBNETS = "subnets"

BASES = ("dense", "pruned", "batched", "torch", "sizes", SUBNETS)

FREE = r"\d[\d.e+-]*|'[^']*'|\"[^\"]*\"|/\S+"
"""Parts of a reason that differ from mutant to mutant: numbers, names, paths."""

BUILD_EVERY, REFIT_EVERY = 37, 41
"""Builds and refits take seconds each: one of so many mutants has them. Primes, so that all exports
have their turn."""

SLOW_LIMITS = Limits(seconds=300.0, nbytes=64 << 30)
"""Of a refit or an export, which traces a model, and of a build by TensorRT for RTX, which reserves
much more address space than it uses."""

MOST_REASONS = 20

ENGINES = f"out/{ENGINES_FOLDER}"

_BASES: list[Path] = []
"""The folder with the exports, in each process of the pool."""


def write_bases(folder: Path) -> None:
    """Writes exports: a whole pipeline, pruned, with lanes, for PyTorch, of two sizes; SubNets."""
    from dipgo.export import export
    from tests.support.sample_exports import write_sample_exports
    from tests.support.tiny_pipeline import save_tiny_pipeline

    pipeline = save_tiny_pipeline(folder / "pipeline")
    write_sample_exports(pipeline, folder)
    export(pipeline, "dense", folder / "torch", steps=2, scheduler="ddim", target="torch")
    export(pipeline, "dense", folder / "sizes", steps=2, scheduler="ddim", also_sizes=((32, 64),))
    write_subnets(folder / SUBNETS)


MODULES = (
    *("dipgo.inspect", "dipgo.run.__main__", "dipgo.bench", "dipgo.refit", "dipgo.export.__main__"),
    *("dipgo.build", "dipgo.engines.tensorrt.build"),
    *("dipgo.run.pipeline", "dipgo.engines.onnxruntime.backend", "dipgo.engines.torch.backend"),
    *("dipgo.export.refitting.refitted_copy", "onnxruntime", "tokenizers", "PIL.Image", "torch"),
)
"""What commands import, once a process: mutants are read in children of it."""


def _begin(folder: str) -> None:
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)
    _BASES[:] = [Path(folder)]


def _try_seed(seed: int) -> tuple[int, str, Report]:
    """Makes a mutant, reads it with the commands, and looks at all around it afterwards."""
    bases = _BASES[0]
    base = bases / BASES[seed % len(BASES)]
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        (folder / "canary").write_text("not of the export")
        out, writes = folder / "out", folder / "writes"
        said = (damage_subnet if base.name == SUBNETS else damage)(base, out, seed)
        writes.mkdir()
        before = _seen(folder, writes)
        reads = [out, bases, ROOT]
        if base.name == SUBNETS:
            actions = _actions_of_subnet(out / "subnet.json", bases / "pipeline", writes)
            report = watch(actions, reads, writes, SLOW_LIMITS)
        elif seed % BUILD_EVERY == 1:
            report = watch(_build(out, writes), reads, writes, SLOW_LIMITS, out)
        else:
            actions = _actions(seed, out, bases / "pipeline", writes, base.name == "torch")
            limits = SLOW_LIMITS if "refit" in actions else Limits()
            report = watch(actions, reads, writes, limits)
        changed = sorted(set(before.items()) ^ set(_seen(folder, writes).items()))
        if changed:
            faults = [*report.faults, f"changed: {changed[0][0]}"]
            report = replace(report, faults=faults)
    return seed, f"{base.name}: {said}", report


def _seen(folder: Path, without: Path) -> dict[str, tuple[int, int, int]]:
    """Returns size, time and mode of everything in a folder, but for what lies in `without`."""
    seen = {}
    for parent, folders, files in os.walk(folder):
        if Path(parent) == without:
            folders.clear()
            continue
        for name in (*folders, *files):
            path = Path(parent) / name
            status = path.lstat()
            if path != without:
                key = str(path.relative_to(folder))
                if key == ENGINES or key.startswith(f"{ENGINES}/tensorrt-rtx"):
                    continue  # what `build` may write
                size = 0 if path.is_dir() else status.st_size
                seen[key] = (size, 0 if path.is_dir() else status.st_mtime_ns, status.st_mode)
    return seen


def _actions(
    seed: int, out: Path, pipeline: Path, writes: Path, torch: bool
) -> dict[str, Callable[[], int]]:
    target = ["--target", "torch", "--provider", "cpu"] if torch else ["--threads", "1"]
    lines = {
        "inspect": ["dipgo.inspect", str(out)],
        "run": [
            *("dipgo.run.__main__", str(out), "--prompt", "a red circle", "--seed", "0"),
            *("--image", str(writes / "image.png"), *target),
        ],
        "bench": ["dipgo.bench", str(out), "--repeats", "1", "--warmup", "0", *target],
    }
    if seed % REFIT_EVERY == 0:
        lines["refit"] = ["dipgo.refit", str(out), "--model", str(pipeline)]
        lines["refit"] += ["--out", str(writes / "refitted")]
    return {name: _command(line) for name, line in lines.items()}


def _actions_of_subnet(subnet: Path, pipeline: Path, writes: Path) -> dict[str, Callable[[], int]]:
    line = ["dipgo.export.__main__", "--model", str(pipeline), "--scheduler", "ddim"]
    line += ["--subnet", str(subnet), "--out", str(writes / "export")]
    return {"inspect": _command(["dipgo.inspect", str(subnet)]), "export": _command(line)}


def _build(out: Path, writes: Path) -> dict[str, Callable[[], int]]:
    line = ["dipgo.build", str(out), "--target", "tensorrt-rtx", "--compute-capability", "8.6"]
    return {"build": _command([*line, "--jobs", "1", "--build-cache", str(writes / "cache")])}


def _command(line: list[str]) -> Callable[[], int]:
    module, *arguments = line

    def run() -> int:
        return run_command(sys.modules[module].main, arguments)

    return run


def fuzz(options: Namespace, bases: Path) -> Iterator[tuple[int, str, Report]]:
    """Yields what became of each mutant, as soon as it is known."""
    seeds = iter(options.seeds or range(options.first, options.first + options.mutants))
    context = get_context("spawn")
    with ProcessPoolExecutor(
        options.jobs, mp_context=context, initializer=_begin, initargs=(str(bases),)
    ) as pool:
        waiting = {pool.submit(_try_seed, seed) for seed in islice(seeds, 2 * options.jobs)}
        while waiting:
            done = next(as_completed(waiting))
            waiting.remove(done)
            yield done.result()
            if (seed := next(seeds, None)) is not None:
                waiting.add(pool.submit(_try_seed, seed))


def summary(reports: dict[int, tuple[str, Report]]) -> dict[str, Any]:
    """Returns how many mutants were taken, refused and at fault, and the most frequent reasons."""
    refused = [report for _, report in reports.values() if REFUSED in report.codes.values()]
    reasons = Counter(re.sub(FREE, "…", report.words)[:160] for report in refused)
    faulty = {seed: pair for seed, pair in sorted(reports.items()) if pair[1].faults}
    return {
        "mutants": len(reports),
        "refused": len(refused),
        "taken": sum(not pair[1].faults for pair in reports.values()) - len(refused),
        "at_fault": len(faulty),
        "slowest_seconds": max(report.seconds for _, report in reports.values()),
        "largest_peak_mib": max(report.peak_nbytes for _, report in reports.values()) / 2**20,
        "reasons": [list(pair) for pair in reasons.most_common(MOST_REASONS)],
        "faults": {
            str(seed): {"mutant": said, **asdict(report)} for seed, (said, report) in faulty.items()
        },
    }


def main(arguments: list[str]) -> None:
    """Reads the mutants, prints faults as they come, and the summary."""
    parser = script_parser(__file__, __doc__)
    add = parser.add_argument
    add("--mutants", type=whole_number(1), default=100, metavar="N", help="mutants (100)")
    add("--first", type=whole_number(0), default=0, metavar="SEED", help="first seed (0)")
    add("--seeds", type=whole_number(0), nargs="+", metavar="SEED", help="these mutants alone")
    add("--jobs", type=whole_number(1), default=2, metavar="N", help="processes (2)")
    add("--bases", type=Path, metavar="DIR", help="exports from an earlier run, made if not there")
    add_json(parser)
    options = parser.parse_args(arguments)
    console, reports = Console(soft_wrap=True), dict[int, tuple[str, Report]]()
    folder = options.bases or Path(tempfile.mkdtemp(prefix="exports-"))
    try:
        if not (folder / "pipeline").exists():
            folder.mkdir(exist_ok=True)
            write_bases(folder)
        for seed, said, report in fuzz(options, folder.absolute()):
            reports[seed] = said, report
            if report.faults:
                console.print(f"seed {seed}: {said}: {report.faults}: {report.words}", markup=False)
    finally:
        if not options.bases:
            shutil.rmtree(folder)
    figures = summary(reports)
    for name in ("mutants", "taken", "refused", "at_fault"):
        console.print(f"{figures[name]:6} {name.replace('_', ' ')}")
    for reason, count in figures["reasons"]:
        console.print(f"{count:6} × {reason}", markup=False)
    write_report(options.json, new_report(**figures))
    if figures["faults"]:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
