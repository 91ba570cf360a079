"""The demo model's dense exports on ONNX Runtime against diffusers' own pipeline: latents.

    python -m scripts.benchmarks.measure_parity [--json FILE]

Same prompts, seeds and guidance, 50 steps, fp32; the largest and the mean relative L2 distance.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from scripts.harness import DEMO, add_json, new_report, run_script, script_parser, write_report

STEPS, GUIDANCE, PROMPTS = 50, 5.0, 8
SCHEDULERS = ("ddim", "plms", "dpm++", "euler", "unipc")
TOLERANCE = 1e-3


def main(arguments: list[str]) -> None:
    """Prints a line a scheduler and fails where the tolerance is missed."""
    parser = script_parser(__file__, __doc__)
    add_json(parser)
    options = parser.parse_args(arguments)
    prompts = (DEMO / "prompts.txt").read_text().splitlines()[:PROMPTS]
    errors = {name: _errors(name, prompts) for name in SCHEDULERS}
    report = new_report(steps=STEPS, prompts=PROMPTS)
    for name, values in errors.items():
        report[name] = {"largest": max(values), "mean": float(np.mean(values))}
        print(f"{name:6} largest {max(values):.2e}  mean {np.mean(values):.2e}")
    write_report(options.json, report)
    if max(map(max, errors.values())) >= TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE}")


def _errors(scheduler: str, prompts: list[str]) -> list[float]:
    """Relative L2 distance of the final latents, a number for each prompt."""
    with tempfile.TemporaryDirectory() as folder:
        out = export(DEMO / "model", "dense", f"{folder}/out", steps=STEPS, scheduler=scheduler)
        ours = Pipeline.from_export(out)
        theirs = DiffusionPipeline.from_pretrained(DEMO / "model").to(torch.float32)
        theirs.scheduler = make_scheduler(theirs.scheduler, scheduler)
        theirs.set_progress_bar_config(disable=True)
        return [_error(ours, theirs, prompt, seed) for seed, prompt in enumerate(prompts)]


def _error(ours: Pipeline, theirs: Any, prompt: str, seed: int) -> float:
    found = ours(prompt, seed=seed, guidance_scale=GUIDANCE, output_type="latent").images
    expected = theirs(
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
    ).images.numpy()
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    run_script(main)
