"""Parity: every path that is installed against the oracle, in fp16, on tiny models."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dipgo.compiler.compile import Compiled
from dipgo.compiler.oracle import interpret
from dipgo.compiler.sampler.probe import probe
from dipgo.ir.plan.nodes import Call
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.faster_diffusion import faster_diffusion
from scripts.benchmarks.gpu_checks.cases import GUIDANCE_SCALE, Case, make_case
from scripts.benchmarks.gpu_checks.paths import ENGINES, Run, open_engine, open_torch
from scripts.benchmarks.gpu_checks.settings import FAILED, Settings

FP16_TOLERANCE = 2e-2
"""Relative L2 of the latents after all steps, against the oracle in fp16. Kernels differ in the
order of their sums and in where they round; guidance multiplies that."""
OTHER_SCALE = 2.0
LEAST_CHANGE = 4 * FP16_TOLERANCE
"""Relative L2 between the two scales: more than any two results at one scale may differ by."""
STEPS = 5


def check_parity(settings: Settings) -> dict[str, Any]:
    """The figures of every case and path; a path beyond the tolerance has failed."""
    cases = {}
    for name, make in parity_cases():
        cases[name] = settings.attempt(f"parity, {name}", partial(_check, make, settings))
    return {"tolerance": FP16_TOLERANCE, "cases": cases}


def parity_cases() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Their names, and what makes them."""
    for model in ("tiny-unet", "tiny-dit"):
        yield f"{model}, random gates", partial(_with_random_gates, model)
    yield "tiny-unet, batched calls", _with_batched_calls


def _with_random_gates(model: str) -> Case:
    case, draw = make_case(model, STEPS), random.Random(0)
    shape = case.subnet.gates.shape
    gates = np.array([[draw.random() < 0.5 for _ in range(shape[1])] for _ in range(shape[0])])
    gates[0] = True
    return replace(case, subnet=replace(case.subnet, gates=gates))


def _with_batched_calls() -> Case:
    """The decoders of steps that share an encoder run as the lanes of one call."""
    case = make_case("tiny-unet", STEPS)
    blocks = ("conv_in", *case.subnet.blocks)
    subnet = faster_diffusion(
        blocks,
        probe(case.scheduler, STEPS).timesteps,
        num_inference_steps=STEPS,
        key_steps=(0, 2),
    )
    return replace(case, subnet=subnet)


def _check(make: Callable[[], Case], settings: Settings) -> dict[str, Any]:
    case = make()
    compiled = case.compile(case.subnet)
    scales = (GUIDANCE_SCALE, OTHER_SCALE)
    expected = [_oracle(compiled, _inputs(case, scale)) for scale in scales]
    paths = {
        name: settings.attempt(f"  {name}", partial(_check_path, opened, case, expected))
        for name, opened in _paths(case, compiled, case.subnet, settings.device)
    }
    lanes = max(one.width for one in compiled.plan.statements if isinstance(one, Call))
    return {"most_lanes_of_a_call": lanes, "paths": paths}


def _paths(
    case: Case, compiled: Compiled, subnet: SubNet, device: str
) -> Iterator[tuple[str, Callable[[Path], Run]]]:
    yield "torch", lambda folder: open_torch(compiled, device)
    for engine in ENGINES:
        if engine.missing(device) is None:
            yield engine.target, partial(open_engine, engine, case, subnet, device)


def _check_path(
    opened: Callable[[Path], Run], case: Case, expected: list[np.ndarray]
) -> dict[str, Any]:
    """Both scales by one loaded path, so that nothing is captured anew between them."""
    with tempfile.TemporaryDirectory() as folder:
        run = opened(Path(folder))
        found = [run(_inputs(case, scale))[0] for scale in (GUIDANCE_SCALE, OTHER_SCALE)]
    errors = [relative_l2(one, oracle) for one, oracle in zip(found, expected, strict=True)]
    change = relative_l2(found[1], found[0])
    figures: dict[str, Any] = {
        f"error_at_scale_{GUIDANCE_SCALE:g}": errors[0],
        f"error_at_scale_{OTHER_SCALE:g}": errors[1],
        "change_between_scales": change,
    }
    problem = _problem(errors, change)
    return figures | ({FAILED: problem} if problem else {})


def _problem(errors: list[float], change: float) -> str | None:
    if not all(error <= FP16_TOLERANCE for error in errors):  # NaN is none of these
        return f"relative L2 {max(errors):.1e} from the oracle; expected {FP16_TOLERANCE:.0e}"
    if change < LEAST_CHANGE:
        return f"another guidance scale changes {change:.1e}; expected {LEAST_CHANGE:.0e} or more"
    return None


def _inputs(case: Case, scale: float) -> dict[str, np.ndarray]:
    return case.inputs() | {"guidance_scale": np.asarray(scale, np.float32)}


def _oracle(compiled: Compiled, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """On the CPU, whatever the device."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return interpret(compiled.plan, compiled.traced, tensors).numpy()


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """In float64."""
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))
