"""What half precision costs the demo model: on the oracle by what is kept in fp32, then on engines.

    python -m scripts.benchmarks.measure_precision [--prompts 100] [--json FILE]

The oracle rounds every operator's result and adds up in fp32. The engines are ONNX Runtime's:
latents of fp16 exports after 50 steps against those of fp32 exports, same prompts and seeds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from dipgo.common.packages import silence_libraries
from dipgo.compiler.compile import compile_plan
from dipgo.compiler.oracle import interpret
from dipgo.compiler.request import Prepared, prepare
from dipgo.compiler.settings import Request
from dipgo.compiler.trace.precision import FP32, GUIDANCE, TIMESTEP_TABLES, Precision
from dipgo.export import export
from dipgo.export.parts import make_parts
from dipgo.export.precision.compare import relative_error
from dipgo.export.precision.inputs import trial_inputs
from dipgo.run.pipeline import Pipeline
from scripts.demo_model.shapes import all_scenes
from scripts.harness import (
    DEMO,
    SUBNETS,
    add_json,
    new_report,
    run_script,
    script_parser,
    write_report,
)

MODEL = DEMO / "model"
SUBNET = SUBNETS / "demo-deepcache-5.json"
STEPS, GUIDANCE_SCALE = 50, 5.0
TOLERANCE = 2e-2
NORMS, ATTENTION = ("group_norm", "layer_norm"), ("scaled_dot_product_attention",)
VARIANTS = {
    "fp16": Precision("fp16"),
    "fp16, guidance too": Precision("fp16", keep_always=(TIMESTEP_TABLES,)),
    "fp16, timestep tables too": Precision("fp16", keep_always=(GUIDANCE,)),
    "fp16, norms in fp32": Precision("fp16", keep_operators=NORMS),
    "fp16, attention in fp32": Precision("fp16", keep_operators=ATTENTION),
    "fp16, both in fp32": Precision("fp16", keep_operators=NORMS + ATTENTION),
    "fp16, mid_block in fp32": Precision("fp16", keep_fp32=("mid_block",)),
    "bf16": Precision("bf16"),
    "bf16, guidance too": Precision("bf16", keep_always=(TIMESTEP_TABLES,)),
    "bf16, timestep tables too": Precision("bf16", keep_always=(GUIDANCE,)),
    "bf16, norms in fp32": Precision("bf16", keep_operators=NORMS),
}


def main(arguments: list[str]) -> None:
    """Prints a line a measurement and fails where the tolerance is missed."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--prompts", type=int, default=100)
    add_json(parser)
    options = parser.parse_args(arguments)
    silence_libraries()
    report = new_report(steps=STEPS, guidance=GUIDANCE_SCALE)
    report["oracle"] = measure_oracle()
    report["engines"] = {
        "dense": measure_engines("dense", options.prompts),
        "subnet": measure_engines(SUBNET, options.prompts),
    }
    write_report(options.json, report)
    for name, found in report["engines"].items():
        if found["not_finite"] or found["largest"] >= TOLERANCE:
            raise SystemExit(f"{name}: more than {TOLERANCE}, or not finite")


def measure_oracle() -> dict[str, float]:
    """Relative L2 of the dense latents after all steps, by what is kept in fp32."""
    prepared = prepare(MODEL, Request("dense", steps=STEPS, scheduler="ddim"))
    expected = _latents(prepared, FP32)
    errors: dict[str, float] = {}
    for name, precision in VARIANTS.items():
        errors[name] = relative_error(_latents(prepared, precision), expected)
        print(f"oracle, {name:24} {errors[name]:.2e}")
    return errors


def _latents(prepared: Prepared, precision: Precision) -> torch.Tensor:
    compiled = compile_plan(
        prepared.source, prepared.schedule, prepared.geometry, precision=precision
    )
    parts = make_parts(prepared, compiled, lambda name: precision)
    inputs = trial_inputs(prepared, compiled, parts)
    return interpret(compiled.plan, compiled.traced, inputs.run)


def measure_engines(subnet: str | Path, prompts: int) -> dict[str, Any]:
    """fp16 against fp32 on ONNX Runtime: errors over the prompts, and how many are not finite."""
    steps = STEPS if subnet == "dense" else None
    with tempfile.TemporaryDirectory() as folder:
        pipelines = {}
        for name in ("fp16", "fp32"):
            out = Path(folder) / name
            export(MODEL, subnet, out, steps=steps, scheduler="ddim", precision=name)
            pipelines[name] = Pipeline.from_export(out)
        texts = [scene.caption for scene in all_scenes()][:prompts]
        pairs = [
            (_draw(pipelines["fp16"], text, seed), _draw(pipelines["fp32"], text, seed))
            for seed, text in enumerate(track(texts, "draw"))
        ]
        manifest = pipelines["fp16"].manifest
    errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
    found = {
        "prompts": len(texts),
        "largest": max(errors),
        "mean": float(np.mean(errors)),
        "not_finite": sum(not np.isfinite(a).all() for a, _ in pairs),
        "numerics": {name: one.error for name, one in manifest.numerics.items()},
        "kept_fp32": manifest.kept_fp32,
    }
    print(Path(subnet).stem, {key: found[key] for key in ("largest", "mean", "not_finite")})
    return found


def _draw(pipeline: Pipeline, prompt: str, seed: int) -> NDArray[np.float32]:
    drawn: NDArray[np.float32] = pipeline(
        prompt, seed=seed, guidance_scale=GUIDANCE_SCALE, output_type="latent"
    ).images
    return drawn


if __name__ == "__main__":
    run_script(main)
