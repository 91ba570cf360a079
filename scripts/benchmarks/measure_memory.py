"""Size on disk and in memory of 50 distinct random rows of gates, against the dense twin.

    python -m scripts.benchmarks.measure_memory [--json FILE]

The real SD-1.5 architecture with random weights, 512², batch 1, fp32. Each export is loaded and
run in a process of its own (Linux counts its pages), the random one with all its steps. Of the
dense twin three calls are run: all its calls are of one segment, and from the second on they ask
for the same memory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from dipgo.engines import load
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.timing import random_inputs
from scripts.harness import (
    ROOT,
    add_json,
    make_table,
    new_report,
    print_machine,
    run_script,
    script_parser,
    write_report,
)

DENSE = ("dense", "--steps", "50", "--scheduler", "ddim")
DENSE_CALLS = 3
SIZE_BAR, MEMORY_BAR = 1.02, 1.15
FLOAT_NBYTES = 4
STATUS = {
    "peak_nbytes": "VmHWM",
    "resident_nbytes": "VmRSS",
    "anonymous_nbytes": "RssAnon",
    "file_backed_nbytes": "RssFile",
}


def main(arguments: list[str]) -> None:
    """Prints a table and fails where a bar is missed."""
    parser = script_parser(__file__, __doc__)
    add_json(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(Path(folder))
    _print(report)
    write_report(options.json, report)
    if report["peak_over_dense"] > MEMORY_BAR:
        raise SystemExit(f"memory: more than {MEMORY_BAR} times the dense twin's")
    if report["random"]["directory_over_weights"] > SIZE_BAR:
        raise SystemExit(f"directory: more than {SIZE_BAR} times the weights")


def _measure(folder: Path) -> dict[str, Any]:
    subnet = folder / "subnet.json"
    _python("-m", "scripts.generate.random_subnet", str(subnet))
    random, dense = folder / "random", folder / "dense"
    _export(random, str(subnet))
    _export(dense, *DENSE)
    report = new_report(
        random=_describe(random) | _in_own_process(random, None),
        dense=_describe(dense) | _in_own_process(dense, DENSE_CALLS),
    )
    for name in ("peak", "resident"):
        key = f"{name}_nbytes"
        report[f"{name}_over_dense"] = report["random"][key] / report["dense"][key]
    return report


def _export(out: Path, *subnet: str) -> None:
    _python(
        *("-m", "dipgo.export", "--model", "arch:sd15", "--no-guidance"),
        *("--out", str(out), "--subnet", *subnet),
    )


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT)


def _describe(out: Path) -> dict[str, Any]:
    """What the directory holds."""
    plan = ExportDirectory.open(out, check_hashes=False).plan
    weights = FLOAT_NBYTES * sum(callee.parameters for callee in plan.callees)
    directory = sum(file.stat().st_size for file in out.iterdir())
    return {
        "distinct_rows": len({step.gates for step in plan.steps}),
        "segments": len(plan.callees),
        "calls": len(plan.calls),
        "weights_nbytes": weights,
        "directory_nbytes": directory,
        "directory_over_weights": directory / weights,
        "plan_arena_nbytes": plan.arena_nbytes,
    }


def _in_own_process(out: Path, calls: int | None) -> dict[str, int]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_load_and_run, out, calls).result()


class _EnoughError(Exception):
    """Ends a run before its last call."""


def _load_and_run(out: Path, calls: int | None) -> dict[str, int]:
    """Memory of this process after loading `out`, and with `calls` of its calls run, or all."""
    runner = load(out)
    loaded = _memory()
    steps: list[int] = []

    def count(step: int) -> None:
        steps.append(step)
        if len(steps) == calls:
            raise _EnoughError

    with suppress(_EnoughError):
        runner.run(random_inputs(runner), on_step=count)
    return {"calls_run": len(steps), "loaded_nbytes": loaded["resident_nbytes"], **_memory()}


def _memory() -> dict[str, int]:
    """Bytes of this process that are in memory; the peak is since its start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    return {key: 1024 * int(fields[name].split()[0]) for key, name in STATUS.items()}


def _print(report: dict[str, Any]) -> None:
    print_machine(report["machine"])
    columns = ("random", "dense")
    rows = [
        (_label(key), *(_figure(key, report[name][key]) for name in columns))
        for key in report["random"]
    ]
    console = Console()
    console.print(make_table(None, ("", *columns), rows))
    console.print(
        f"random over dense: peak {report['peak_over_dense']:.4f} (bar {MEMORY_BAR}), "
        f"after the run {report['resident_over_dense']:.4f}; "
        f"directory over weights {report['random']['directory_over_weights']:.4f} (bar {SIZE_BAR})"
    )


def _label(key: str) -> str:
    return key.replace("_nbytes", ", MiB").replace("_", " ")


def _figure(key: str, value: float) -> str:
    if key.endswith("_nbytes"):
        return f"{value / (1 << 20):.1f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_script(main)
