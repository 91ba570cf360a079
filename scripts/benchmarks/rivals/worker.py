"""Runs one variant once, in its own process: `-m scripts.benchmarks.rivals.worker FOLDER NAME`."""

from __future__ import annotations

import json
import os
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from scripts.benchmarks.rivals import ours
from scripts.benchmarks.rivals.task import NotPossible, Task

PACKAGES = (
    "onnxruntime",
    "onnxruntime-openvino",
    "torch",
    "diffusers",
    "optimum-onnx",
    "DeepCache",
)


def main(folder: Path, name: str) -> None:
    """Writes `result.json` and `latents.npy` to the folder."""
    task = Task.load(folder / "task.json")
    if task.threads:
        os.environ["OMP_NUM_THREADS"] = str(task.threads)
    try:
        found = _measure(task, name, folder)
    except NotPossible as error:
        found = {"problem": str(error)}
    except Exception as error:  # a rival's own failure is a line of the table
        found = {"problem": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    (folder / "result.json").write_text(json.dumps(found) + "\n")


def _measure(task: Task, name: str, folder: Path) -> dict[str, Any]:
    started = perf_counter()
    ready = _make(task, name)
    loaded = perf_counter()
    ready.warm_up()
    warm, cpu = perf_counter(), process_time()
    latents = ready.run()
    seconds, cpu_seconds = perf_counter() - warm, process_time() - cpu
    np.save(folder / "latents.npy", latents)
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "load_seconds": loaded - started,
        "warm_up_seconds": warm - loaded,
        "peak_rss_nbytes": peak,
        "versions": {one: found for one in PACKAGES if (found := _version(one))},
    }


def _make(task: Task, name: str) -> Any:
    if name in ours.VARIANTS:
        return ours.VARIANTS[name](task)
    import torch

    from scripts.benchmarks.rivals import in_diffusers

    if task.threads:
        torch.set_num_threads(task.threads)
    return in_diffusers.VARIANTS[name](task)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
