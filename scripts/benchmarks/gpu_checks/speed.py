"""Speed: whole trajectories of one model, dense and pruned, by every path that is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from dipgo.ir.plan.cost import plan_cost, step_patterns
from dipgo.ir.plan.plan import Plan, evaluations
from dipgo.ir.subnet.subnet import SubNet
from scripts.benchmarks.gpu_checks.cases import Case, make_case
from scripts.benchmarks.gpu_checks.diffusers_loop import DiffusersLoop
from scripts.benchmarks.gpu_checks.machine import MemoryMeter
from scripts.benchmarks.gpu_checks.parity import relative_l2
from scripts.benchmarks.gpu_checks.paths import (
    ENGINES,
    EVENTS,
    HOST_CLOCK,
    Engine,
    Run,
    open_engine,
    open_torch,
)
from scripts.benchmarks.gpu_checks.settings import Settings

EAGER, COMPILED = "diffusers eager, dense", "diffusers torch.compile, dense"
DENSE, SUBNET = "dense", "SubNet"


class ModelCheck:
    """The measurements of one model. `found` is complete at any time as far as it goes."""

    def __init__(self, name: str, settings: Settings, found: dict[str, Any]) -> None:
        self._name, self._settings, self._found = name, settings, found
        self._macs: dict[str, int] = {}
        self._latents: dict[str, np.ndarray] = {}
        found["measurements"] = {}

    def run(self) -> dict[str, Any]:
        """Paths that trace come first: the baselines convert the denoiser in place."""
        case = make_case(self._name, self._settings.steps)
        self._found |= _describe(case)
        subnets = {DENSE: case.dense, SUBNET: case.subnet}
        for kind, subnet in subnets.items():
            self._attempt(_path("torch", kind), partial(self._torch, case, kind, subnet))
        for engine in ENGINES:
            if engine.missing(self._settings.device) is None:
                for kind, subnet in subnets.items():
                    work = partial(self._engine, engine, case, kind, subnet)
                    self._attempt(_path(engine.target, kind), work)
        self._attempt(EAGER, partial(self._eager, case))
        if self._settings.compile:
            self._attempt(COMPILED, partial(self._compiled, case))
        self._found["speedups"] = self._speedups()
        return self._found

    def _attempt(self, path: str, work: Callable[[], dict[str, Any]]) -> None:
        what = f"{self._name}, {path}"
        self._found["measurements"][path] = self._settings.attempt(what, work)

    def _torch(self, case: Case, kind: str, subnet: SubNet) -> dict[str, Any]:
        started = perf_counter()
        compiled = case.compile(subnet)
        compiling = perf_counter() - started
        self._count(kind, compiled.plan)
        meter = MemoryMeter(self._settings.device)
        started = perf_counter()
        run = open_torch(compiled, self._settings.device)
        del compiled  # weights on the host
        seconds = {"compile_seconds": compiling, "load_seconds": perf_counter() - started}
        return seconds | self._measure(run, case, meter, _path("torch", kind))

    def _count(self, kind: str, plan: Plan) -> None:
        cost = plan_cost(plan)
        self._macs[kind] = cost.macs + cost.attention_macs
        self._found[kind] = {
            "macs": cost.macs,
            "attention_macs": cost.attention_macs,
            "evaluations": evaluations(plan),
            "segments": len(plan.callees),
            "step_patterns": step_patterns(plan),
        }

    def _engine(self, engine: Engine, case: Case, kind: str, subnet: SubNet) -> dict[str, Any]:
        meter = MemoryMeter(self._settings.device)
        started = perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run = open_engine(engine, case, subnet, self._settings.device, Path(folder))
            seconds = {"load_seconds": perf_counter() - started}
            found = self._measure(run, case, meter, _path(engine.target, kind), engine.clock)
        return seconds | found

    def _eager(self, case: Case) -> dict[str, Any]:
        meter = MemoryMeter(self._settings.device)
        with DiffusersLoop(case, self._settings.device) as loop:
            return self._measure(loop.run, case, meter, EAGER)

    def _compiled(self, case: Case) -> dict[str, Any]:
        """The warm-up run has the compiling."""
        meter = MemoryMeter(self._settings.device)
        with DiffusersLoop(case, self._settings.device) as loop:
            how = loop.compile(self._settings.compile_mode)
            return {"torch_compile": how} | self._measure(loop.run, case, meter, COMPILED)

    def _measure(
        self, run: Run, case: Case, meter: MemoryMeter, path: str, clock: str = EVENTS
    ) -> dict[str, Any]:
        inputs = case.inputs()
        figures = measure(run, inputs, self._settings.repeats)
        latents = figures.pop("latents")
        self._latents[path] = latents
        dense = self._latents.get(_path("torch", DENSE))
        if dense is not None and dense is not latents and SUBNET not in path:
            figures["relative_l2_to_torch_dense"] = relative_l2(latents, dense)
        figures["finite"] = bool(np.isfinite(latents).all())
        by = clock if self._settings.device == "cuda" else HOST_CLOCK
        return {"clock": by, **figures, **meter.read()}

    def _speedups(self) -> dict[str, Any]:
        """By MACs, and by the device's seconds; retention is the share that is left.

        One model is in memory at a time, so there are no turns: these are ratios of medians.
        """
        if len(self._macs) < 2:
            return {}
        ideal = self._macs[DENSE] / self._macs[SUBNET]
        found: dict[str, Any] = {"ideal": ideal}
        for target in ("torch", *(engine.target for engine in ENGINES)):
            dense, pruned = (self._seconds(_path(target, kind)) for kind in (DENSE, SUBNET))
            if dense and pruned:
                measured = dense / pruned
                found[target] = {"measured": measured, "retention": measured / ideal}
        return found

    def _seconds(self, path: str) -> float | None:
        found: Mapping[str, Any] = self._found["measurements"].get(path, {})
        return found.get("device_seconds")


def _path(target: str, kind: str) -> str:
    return f"{target}, {kind}"


def _describe(case: Case) -> dict[str, Any]:
    return {
        "denoiser": case.source.model_class,
        "scheduler": type(case.scheduler).__name__,
        "steps": case.subnet.num_inference_steps,
        "batch": 1,
        "guidance": True,
        "precision": "fp16",
        "gates": case.gates,
        "gates_kept": case.subnet.kept,
        "latents": list(case.inputs()["latents"].shape),
    }


def measure(run: Run, inputs: Mapping[str, np.ndarray], repeats: int) -> dict[str, Any]:
    """Medians over the repeats, after two runs that are not; seconds a trajectory.

    The first of these chooses kernels, and compiles; the second brings the device to its clock.

    A run returns when its result is on the host, so the host's clock covers all of it.
    """
    started = perf_counter()
    run(inputs)
    first = perf_counter() - started
    run(inputs)
    device, wall = [], []
    for _ in range(repeats):
        started = perf_counter()
        latents, seconds = run(inputs)
        wall.append(perf_counter() - started)
        device.append(seconds)
    shares = [1 - inner / outer for inner, outer in zip(device, wall, strict=True)]
    return {
        "latents": latents,
        "device_seconds": median(device),
        "wall_seconds": median(wall),
        "host_time_between_calls": median(shares),
        "device_seconds_runs": device,
        "wall_seconds_runs": wall,
        "first_run_seconds": first,
    }
