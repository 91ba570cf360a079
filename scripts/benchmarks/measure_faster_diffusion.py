"""Faster Diffusion's schedule on SD-1.5 at real size: batched decoders against one at a time.

    python -m scripts.benchmarks.measure_faster_diffusion [--json FILE]

Random weights of the real architecture, 512², fp32, batch 1 without guidance, DDIM-50. The same
SubNet is exported with all passes and without `batch_calls`; both run once, on the same noise.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dipgo.compiler.passes import OPTIMISE
from dipgo.engines import Runner, load
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.plan.nodes import PROLOGUE
from scripts.harness import SUBNETS, add_json, new_report, run_script, script_parser, write_report

SUBNET = SUBNETS / "sd15-faster-diffusion.json"
PASSES = {
    "batched": [one.name for one in OPTIMISE],
    "sequential": [one.name for one in OPTIMISE if one.name != "batch_calls"],
}


def main(arguments: list[str]) -> None:
    """Prints the figures and writes them."""
    parser = script_parser(__file__, __doc__)
    add_json(parser)
    options = parser.parse_args(arguments)
    latents: dict[str, Any] = {}
    report = new_report()
    for name, passes in PASSES.items():
        with tempfile.TemporaryDirectory() as folder:
            out = export("arch:sd15", SUBNET, Path(folder) / "out", guidance=False, passes=passes)
            runner = load(out)
            latents[name] = runner.run(random_inputs(runner))["latents"]
            report[name] = _figures(runner)
    difference = np.linalg.norm(latents["batched"] - latents["sequential"])
    report["relative_l2"] = float(difference / np.linalg.norm(latents["sequential"]))
    print(json.dumps(report, indent=1))
    write_report(options.json, report)


def _figures(runner: Runner) -> dict[str, Any]:
    plan, times = runner.export.plan, runner.times
    assert times is not None
    widths: dict[str, list[int]] = {}
    for call in plan.calls:
        if call.step != PROLOGUE:
            widths.setdefault(call.callee, []).append(call.width)
    return {
        "calls": {name: len(lanes) for name, lanes in widths.items()},
        "lanes": widths,
        "members": {callee.name: list(callee.members) for callee in plan.callees},
        "macs_kept": plan_cost(plan).kept,
        "arena_mib": plan.arena_nbytes / (1 << 20),
        "seconds": times.total,
        "seconds_in_segments": times.segments,
    }


if __name__ == "__main__":
    run_script(main)
