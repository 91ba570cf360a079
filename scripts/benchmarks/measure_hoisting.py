"""What leaves the loop and what that is worth on the clock: SD-1.5 and DiT-XL/2 at 256².

    python -m scripts.benchmarks.measure_hoisting [--steps 4] [--repeats 3] [--json FILE]

Each architecture is exported twice, dense, with all passes and without those that take work out
of the loop; both alternate in one process. Random weights, fp32, batch 1 without guidance.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime

from dipgo.compiler.passes import OPTIMISE
from dipgo.compiler.passes.manager import plan_size
from dipgo.engines import Runner, load
from dipgo.engines.ratios import paired_ratio
from dipgo.engines.timing import Timing, time_runners
from dipgo.export import export
from dipgo.ir.plan.nodes import PROLOGUE
from dipgo.ir.plan.plan import Plan
from scripts.harness import add_json, new_report, run_script, script_parser, write_report

ARCHITECTURES = ("sd15", "dit-xl-2-256")
HOISTING = {"number_values", "fold_timesteps", "hoist_prompt_work", "batch_calls"}
PASSES = {
    "before": [one.name for one in OPTIMISE if one.name not in HOISTING],
    "after": [one.name for one in OPTIMISE],
}


def main(arguments: list[str]) -> None:
    """Prints the figures of each architecture and writes them."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    add_json(parser)
    options = parser.parse_args(arguments)
    report = new_report(steps=options.steps)
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            report[name] = _measure(name, Path(folder), options.steps, options.repeats)
        print(name, json.dumps(report[name], indent=1), flush=True)
    write_report(options.json, report)


def _measure(name: str, folder: Path, steps: int, repeats: int) -> dict[str, Any]:
    for which, passes in PASSES.items():
        export(
            f"arch:{name}",
            "dense",
            folder / which,
            steps=steps,
            scheduler="ddim",
            guidance=False,
            passes=passes,
        )
    runners = {which: load(folder / which) for which in PASSES}
    report = {which: _figures(runner, folder) for which, runner in runners.items()}
    timings = time_runners(runners, warmup=1, repeats=repeats)
    for which, timing in timings.items():
        loop = _called_in_loop(runners[which].export.plan)
        report[which]["seconds_a_step"] = sum(timing.segments[one] for one in loop) / steps
        report[which]["seconds_in_the_prologue"] = sum(
            seconds for one, seconds in timing.segments.items() if one not in loop
        )
    loops = {
        which: [sum(turn) for turn in zip(*_in_loop(runners[which], timing), strict=True)]
        for which, timing in timings.items()
    }
    ratio = paired_ratio(loops["before"], loops["after"])
    interval = [ratio.low, ratio.high]
    return {**report, "step_speedup": ratio.median, "step_speedup_interval": interval}


def _in_loop(runner: Runner, timing: Timing) -> list[tuple[float, ...]]:
    """Seconds of every run, for each segment that is called at a step."""
    return [timing.segment_runs[name] for name in _called_in_loop(runner.export.plan)]


def _figures(runner: Runner, folder: Path) -> dict[str, Any]:
    """Of what runs at a step: parameters, nodes of the ONNX graph, kernels that run."""
    plan, path = runner.export.plan, runner.export.path
    (callee,) = _called_in_loop(plan)
    return {
        "parameters_in_the_loop": plan_size(plan).loop_parameters,
        "onnx_nodes": len(list(ir.load(path / f"{callee}.onnx").graph.all_nodes())),
        "kernels": _kernels(runner, callee, folder),
    }


def _called_in_loop(plan: Plan) -> set[str]:
    return {call.callee for call in plan.calls if call.step != PROLOGUE}


def _kernels(runner: Runner, callee: str, folder: Path) -> int:
    """Kernels that ONNX Runtime launches in one call, counted by its profiler."""
    import numpy as np

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    path = runner.export.path / f"{callee}.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    session.run(
        None, {one.name: np.zeros(one.shape, dtypes[one.type]) for one in session.get_inputs()}
    )
    events = json.loads(Path(session.end_profiling()).read_text())
    return sum(event.get("name", "").endswith("_kernel_time") for event in events)


if __name__ == "__main__":
    run_script(main)
