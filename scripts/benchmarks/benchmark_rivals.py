"""What people would pick instead of dipgo: one run, one machine, the same noise and prompt.

    python -m scripts.benchmarks.benchmark_rivals --model examples/demo/model \\
        --subnet examples/subnets/demo-dipgo-0.80.json --folder out/rivals-demo --json FILE
    python -m scripts.benchmarks.benchmark_rivals --model arch:sd15 \\
        --subnet examples/subnets/sd15-dipgo-0.80.json --folder out/rivals-sd15 --json FILE

Only the denoiser's loop runs: no text encoder, no VAE. Every run is a process of its own, so that
its peak memory is its own; each round goes through all variants. What is done lies in the
folder: run the same command again to go on. OpenVINO and ONNX Runtime exclude one another, so
`--openvino-python` names another environment's Python (`make test-openvino` makes one), and
`--rivals-python` one that has the packages DeepCache and optimum-onnx.
"""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from dipgo.common.cli import Parser
from dipgo.engines.ratios import Ratio, paired_ratio
from dipgo.ir.subnet.subnet import SubNet
from scripts.benchmarks.rivals import in_diffusers, ours
from scripts.benchmarks.rivals.task import Task
from scripts.harness import (
    ROOT,
    add_json,
    add_threads,
    make_table,
    new_report,
    run_script,
    script_parser,
    write_report,
)

VARIANTS = (*in_diffusers.VARIANTS, *ours.VARIANTS)
BASE = "eager"
GIB = 1 << 30
TABLE_WIDTH = 150
"""Columns that the table needs, also where the output is not a terminal."""


def main(arguments: list[str]) -> None:
    """Prepares, measures what is not measured yet, prints and writes the figures."""
    options = _parser().parse_args(arguments)
    subnet = SubNet.load(options.subnet)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(
        options.model,
        str(options.subnet),
        options.steps or subnet.num_inference_steps,
        options.scheduler,
        not options.no_guidance,
        options.threads,
        str(folder),
    )
    _check_same_task(task, folder)
    if not (folder / "inputs.npz").exists():
        in_diffusers.write_inputs(task)
    problems = _export(task, options.variants)
    for index in range(options.rounds):
        for name in options.variants:
            if name not in problems:
                _measure_once(task, name, index, options)
    report = _report(task, options.variants, options.rounds, problems)
    _print(report)
    write_report(options.json, report)


def _check_same_task(task: Task, folder: Path) -> None:
    """Results of another task must not be taken for this one's."""
    path = folder / "task.json"
    if not path.exists():
        task.save(path)
    if Task.load(path) != task:
        raise SystemExit(f"{folder} holds the results of {Task.load(path)}: name another --folder")


def _export(task: Task, variants: Sequence[str]) -> dict[str, str]:
    """Both exports for each engine; returns problems by the names of variants."""
    problems = {}
    for name in ours.VARIANTS:
        if name in variants:
            kind, _, engine = name.partition(" ")
            print(f"export {name}", flush=True)
            if problem := ours.write_export(task, kind, engine):
                problems[name] = problem
    return problems


def _measure_once(task: Task, name: str, index: int, options: Namespace) -> None:
    """Unless it was done before. The base's and each variant's latents are kept."""
    kept = Path(task.folder) / f"{name.replace(' ', '-')}.{index}.json"
    if kept.exists():
        return
    python = _python(name, options)
    result = Path(task.folder) / "result.json"
    result.unlink(missing_ok=True)
    print(f"round {index + 1}: {name}", flush=True)
    command = [str(python), "-m", "scripts.benchmarks.rivals.worker", task.folder, name]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        kept.write_text(json.dumps({"problem": f"no {python}: make test-openvino"}) + "\n")
        return
    if not result.exists():  # killed, or a package that cannot be imported
        words = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        result.write_text(json.dumps({"problem": words[0]}) + "\n")
    elif (latents := Path(task.folder) / "latents.npy").exists():
        latents.replace(_latents_path(task, name))
    result.replace(kept)


def _python(name: str, options: Namespace) -> Path:
    """Whose packages the variant is run with."""
    if name in in_diffusers.VARIANTS:
        return Path(options.rivals_python)
    return Path(options.openvino_python if "openvino" in name else sys.executable)


def _latents_path(task: Task, name: str) -> Path:
    return Path(task.folder) / f"{name.replace(' ', '-')}.npy"


def _report(
    task: Task, variants: Sequence[str], rounds: int, problems: dict[str, str]
) -> dict[str, Any]:
    found = {name: _summary(task, name, rounds, problems.get(name, "")) for name in variants}
    base = found.get(BASE, {}).get("runs")
    for name, one in found.items():
        if "seconds" in one:
            one["seconds_a_step"] = one["seconds"] / task.steps
            one |= _ratio("speedup_over_eager", paired_ratio(base, one["runs"]) if base else None)
            one["distance_to_eager"] = _distance(task, name, BASE)
    _add_retention(task, found)
    return new_report(
        task={name: getattr(task, name) for name in ("model", "subnet", "steps", "scheduler")},
        guidance=task.guidance,
        threads=task.threads,
        rounds=rounds,
        variants=found,
    )


def _summary(task: Task, name: str, rounds: int, problem: str) -> dict[str, Any]:
    """Medians over the rounds, or why there are none."""
    if problem:
        return {"problem": problem}
    stem = Path(task.folder) / name.replace(" ", "-")
    runs = [json.loads(Path(f"{stem}.{index}.json").read_text()) for index in range(rounds)]
    if broken := [one["problem"] for one in runs if "problem" in one]:
        return {"problem": broken[0]}
    keys = ("seconds", "cpu_seconds", "load_seconds", "warm_up_seconds", "peak_rss_nbytes")
    summary: dict[str, Any] = {key: median(one[key] for one in runs) for key in keys}
    return {**summary, "runs": [one["seconds"] for one in runs], "versions": runs[0]["versions"]}


def _ratio(name: str, ratio: Ratio | None) -> dict[str, Any]:
    """The median and the interval of paired ratios, under `name` and `name_interval`."""
    if ratio is None:
        return {name: None, f"{name}_interval": None}
    return {name: ratio.median, f"{name}_interval": [ratio.low, ratio.high]}


def _distance(task: Task, name: str, base: str) -> float | None:
    """Relative L2 of the latents to those of `base`, if there are any."""
    if not _latents_path(task, base).exists():
        return None
    expected, found = np.load(_latents_path(task, base)), np.load(_latents_path(task, name))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _add_retention(task: Task, found: dict[str, dict[str, Any]]) -> None:
    """Measured speedup of each engine's SubNet over its dense, by what the MACs promise.

    Both round by round: each round goes through all variants. And how far the engine's arithmetic
    alone takes the SubNet's latents from fp32's.
    """
    for engine in ours.PROVIDERS:
        dense, subnet = (found.get(f"{kind} {engine}", {}) for kind in ours.KINDS)
        if "seconds" in dense and "seconds" in subnet:
            ideal = ours.ideal_speedup(task, engine)
            measured = paired_ratio(dense["runs"], subnet["runs"])
            subnet |= {"ideal": ideal, **_ratio("measured", measured)}
            subnet |= _ratio("retention", measured.over(ideal))
            subnet["distance_to_fp32"] = _distance(task, f"subnet {engine}", "subnet onnxruntime")


def _print(report: dict[str, Any]) -> None:
    figures = ("seconds", "a step", "× eager", "distance", "peak GiB", "retention", "to fp32")
    title = f"{report['task']['model']}, {report['task']['steps']} steps"
    rows = [
        (name, *_cells(one), one.get("problem", "")) for name, one in report["variants"].items()
    ]
    table = make_table(title, ("variant", *figures, "problem"), rows)
    table.columns[-1].justify, table.columns[-1].overflow = "left", "fold"
    console = Console()
    console = console if console.is_terminal else Console(width=TABLE_WIDTH)
    console.print(table)


def _with_interval(one: dict[str, Any], name: str, form: str) -> str | None:
    """A ratio with its interval, if it has been measured in more than one round."""
    if one.get(name) is None:
        return None
    low, high = one[f"{name}_interval"]
    return f"{one[name]:{form}}" + (f" [{low:{form}}, {high:{form}}]" if low < high else "")


def _cells(one: dict[str, Any]) -> list[str]:
    memory = one["peak_rss_nbytes"] / GIB if "seconds" in one else None
    values = (
        (one.get("seconds"), ".3f"),
        (one.get("seconds_a_step"), ".4f"),
        (_with_interval(one, "speedup_over_eager", ".2f"), ""),
        (one.get("distance_to_eager"), ".1e"),
        (memory, ".2f"),
        (_with_interval(one, "retention", ".3f"), ""),
        (one.get("distance_to_fp32"), ".1e"),
    )
    return ["" if value is None else format(value, form) for value, form in values]


def _parser() -> Parser:
    parser = script_parser(__file__, __doc__)
    add = parser.add_argument
    add("--model", required=True, help="a Stable Diffusion pipeline's directory, or arch:sd15")
    add("--subnet", type=Path, required=True)
    add("--folder", type=Path, required=True, help="exports and results, kept")
    add_json(parser)
    add("--steps", type=int, default=0, help="the SubNet's own unless given")
    add("--scheduler", default="ddim")
    add("--rounds", type=int, default=3)
    add_threads(parser)
    add("--no-guidance", action="store_true")
    add("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME")
    add("--openvino-python", type=Path, default=ROOT / ".venv-openvino" / "bin" / "python")
    add("--rivals-python", type=Path, default=Path(sys.executable), help="with DeepCache, optimum")
    return parser


if __name__ == "__main__":
    run_script(main)
