"""dipgo's exports, dense and SubNet, on ONNX Runtime's providers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dipgo.engines import load
from dipgo.engines.export_directory import ExportDirectory
from dipgo.ir.plan.cost import plan_cost
from scripts.benchmarks.rivals.task import ROWS, NotPossible, Ready, Task

PROVIDERS = {"onnxruntime": "cpu", "openvino": "openvino", "openvino bf16": "openvino-bf16"}
KINDS = ("dense", "subnet")


def export_path(task: Task, kind: str, engine: str) -> Path:
    """OpenVINO's precisions share an export."""
    return Path(task.folder) / f"{kind}-{engine.split()[0]}"


def write_export(task: Task, kind: str, engine: str) -> str:
    """Exports, unless that was done before; returns why it is not possible, if so."""
    out = export_path(task, kind, engine)
    if out.exists():
        return ""
    what = ["--subnet", task.subnet]
    if kind == "dense":
        what = ["--subnet", "dense", "--steps", str(task.steps), "--scheduler", task.scheduler]
    command = [sys.executable, "-m", "dipgo.export", "--model", task.model, "--out", str(out)]
    command += [*what, "--target", engine.split()[0]]
    command += [] if task.guidance else ["--no-guidance"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def ideal_speedup(task: Task, engine: str) -> float:
    """The MACs of dense over those of the SubNet, attention included."""
    costs = []
    for kind in KINDS:
        out = export_path(task, kind, engine)
        cost = plan_cost(ExportDirectory.open(out, check_hashes=False).plan)
        costs.append(cost.macs + cost.attention_macs)
    return costs[0] / costs[1]


def _variant(kind: str, engine: str) -> Callable[[Task], Ready]:
    def make(task: Task) -> Ready:
        out = export_path(task, kind, engine)
        if not out.exists():
            raise NotPossible("there is no such export")
        runner = load(out, provider=PROVIDERS[engine], threads=task.threads, check_hashes=False)
        if runner.export.plan.num_inference_steps != task.steps:
            raise NotPossible(f"the SubNet is not for {task.steps} steps")
        given = task.inputs
        rows = ROWS if task.guidance else ROWS[1:]
        inputs: dict[str, Any] = {
            "latents": given["latents"],
            "encoder_hidden_states": np.concatenate([given[name] for name in rows]),
        }
        if task.guidance:
            inputs["guidance_scale"] = task.guidance_scale

        def run() -> np.ndarray:
            return runner.run(inputs)["latents"]

        return Ready(run, run)

    return make


VARIANTS = {f"{kind} {engine}": _variant(kind, engine) for engine in PROVIDERS for kind in KINDS}
