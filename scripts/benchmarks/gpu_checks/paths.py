"""The paths from a plan to numbers: PyTorch in memory; ONNX Runtime and TensorRT by an export."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dipgo.compiler.compile import Compiled
from dipgo.engines import load
from dipgo.ir.subnet.subnet import SubNet
from scripts.benchmarks.gpu_checks.cases import Case
from scripts.benchmarks.gpu_checks.in_memory import make_executor

Run: TypeAlias = Callable[[Mapping[str, Any]], tuple[np.ndarray, float]]
"""Inputs to the latents, and the device's seconds."""
EXPORTING = ("onnx", "onnx_ir", "onnxscript")
EVENTS = "device events around the trajectory"
HOST_CLOCK = "host clock around each synchronous call, summed"


@dataclass(frozen=True, slots=True)
class Engine:
    """A target of exports, what it needs, and by what clock its seconds are."""

    target: str
    packages: tuple[str, ...]
    clock: str = EVENTS

    def missing(self, device: str) -> str | None:
        """Why it is left out, None where it is not."""
        absent = [name for name in (*EXPORTING, *self.packages) if not _is_there(name)]
        if absent:
            return f"not installed: {', '.join(absent)}"
        if self.target != "onnxruntime":
            return None if device == "cuda" else "runs on GPUs only"
        providers = importlib.import_module("onnxruntime").get_available_providers()
        wanted = f"{device.upper()}ExecutionProvider"
        return None if wanted in providers else f"an onnxruntime without {wanted}"


ENGINES = (
    Engine("onnxruntime", ("onnxruntime",), HOST_CLOCK),
    Engine("tensorrt", ("tensorrt", "polygraphy", "cuda.bindings")),
    Engine("tensorrt-rtx", ("tensorrt_rtx", "polygraphy", "cuda.bindings")),
)


def _is_there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def open_torch(compiled: Compiled, device: str) -> Run:
    """The torch target."""
    executor = make_executor(compiled, device)

    def run(inputs: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        result, seconds = executor.run(inputs, lambda step: None)
        return result, sum(seconds.values())

    return run


def open_engine(engine: Engine, case: Case, subnet: SubNet, device: str, folder: Path) -> Run:
    """Exports to `folder`, builds what is to be built, and loads it. Raises DipgoError."""
    from dipgo.export import export

    scheduler = type(case.scheduler).__name__
    out = export(
        case.source,
        subnet,
        folder / "out",
        scheduler=scheduler,
        target=engine.target,
        precision="fp16",
        check_numerics=False,
    )
    provider = device if engine.target == "onnxruntime" else None
    runner = load(out, target=engine.target, provider=provider)

    def run(inputs: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        latents = runner.run(inputs)["latents"]
        assert runner.times is not None
        return latents, sum(runner.times.segments.values())

    return run
