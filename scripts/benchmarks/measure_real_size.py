"""The published SD-1.5 SubNet at real size: export, run, and time it against its dense twin.

    python -m scripts.benchmarks.measure_real_size [--guidance] [--repeats 3] --json FILE

Random weights of the real architecture, 512², fp32. Exports run in processes of their own, so
that their time and peak memory are theirs alone; PyTorch's eager step is timed after the engines.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from dipgo.bench import make_report
from dipgo.engines import Runner, load
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.timing import random_inputs, time_runners
from dipgo.ir.plan.cost import plan_cost, step_patterns
from dipgo.ir.plan.plan import evaluations
from scripts.harness import ROOT, SUBNETS, add_json, run_script, script_parser, write_report

SUBNET = SUBNETS / "sd15-dipgo-0.80.json"
GIB = 1 << 30


def main(arguments: list[str]) -> None:
    """Measures and writes the figures."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--guidance", action="store_true", help="batch 2 with guidance")
    parser.add_argument("--repeats", type=int, default=3)
    add_json(parser, required=True)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(Path(folder), options.guidance, options.repeats)
    write_report(options.json, report)
    print(json.dumps(report, indent=1))


def _measure(folder: Path, guidance: bool, repeats: int) -> dict[str, Any]:
    paths = {"this": folder / "subnet", "against": folder / "dense"}
    exports = {
        "this": _export(paths["this"], guidance, "--subnet", str(SUBNET)),
        "against": _export(
            paths["against"], guidance, "--subnet", "dense", "--steps", "50", "--scheduler", "ddim"
        ),
    }
    started = perf_counter()
    runners = {name: load(path) for name, path in paths.items()}
    loading = perf_counter() - started
    inputs = random_inputs(runners["this"])
    first, second = (runners["this"].run(inputs)["latents"] for _ in range(2))
    report = make_report(runners, time_runners(runners, warmup=0, repeats=repeats))
    plan = runners["this"].export.plan
    eager = _eager_step(guidance)
    per_step = report["against"]["seconds"] / report["against"]["evaluations"]
    return {
        **report,
        "guidance": guidance,
        "exports": exports,
        "load_both_seconds": loading,
        "step_patterns": step_patterns(plan),
        "same_latents_twice": first.tobytes() == second.tobytes(),
        "finite": bool(np.isfinite(first).all()),
        "dense_seconds_a_step": per_step,
        "dense_gflops": 2 * _dense_macs_a_step(runners["against"]) / per_step / 1e9,
        "machine_gemm_gflops": _gemm_gflops(),
        "eager_seconds_a_step": eager,
        "engine_speedup_over_eager": eager / per_step,
    }


def _export(out: Path, guidance: bool, *options: str) -> dict[str, float]:
    """Seconds, peak GiB and the directory's size over the weights' of an export."""
    command = [sys.executable, "-m", "dipgo.export", "--model", "arch:sd15", "--out", str(out)]
    started = perf_counter()
    subprocess.run(
        [*command, *options, *([] if guidance else ["--no-guidance"])], check=True, cwd=ROOT
    )
    seconds = perf_counter() - started
    # Linux counts in KiB, and the largest child so far: the first export is the larger one.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GIB
    size = sum(file.stat().st_size for file in out.iterdir())
    plan = ExportDirectory.open(out, check_hashes=False).plan
    parameters = sum(callee.parameters for callee in plan.callees)
    return {
        "seconds": seconds,
        "peak_gib": peak,
        "directory_over_weights": size / (4 * parameters),
    }


def _dense_macs_a_step(runner: Runner) -> int:
    cost = plan_cost(runner.export.plan)
    return (cost.macs + cost.attention_macs) // evaluations(runner.export.plan)


def _gemm_gflops(size: int = 4096, repeats: int = 5) -> float:
    """What this machine does in one large f32 matrix product: no engine can do much better."""
    import torch

    matrix, seconds = torch.randn(size, size), []
    for _ in range(repeats):
        started = perf_counter()
        matrix @ matrix
        seconds.append(perf_counter() - started)
    return 2 * size**3 / median(seconds) / 1e9


def _eager_step(guidance: bool, repeats: int = 3) -> float:
    """Median seconds of one step of the U-Net in PyTorch, eager, fp32."""
    import torch

    from dipgo.models.registry import find_presets

    denoiser = find_presets()["sd15"].build_denoiser().eval()
    rows = 2 if guidance else 1
    arguments = (torch.randn(rows, 4, 64, 64), torch.tensor(981), torch.randn(rows, 77, 768))
    seconds = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            started = perf_counter()
            denoiser(*arguments)
            seconds.append(perf_counter() - started)
    return median(seconds[1:])


if __name__ == "__main__":
    run_script(main)
