"""VAEs whose options scale, shift and normalise latents: each pipeline reads some of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.fuzz.draws import draw_case
from scripts.fuzz.pipelines import ODD_VAE
from scripts.fuzz.trial import Verdict, try_draw

CASES = (
    ("sd", "text"),
    ("sd", "image"),
    ("sd", "inpaint"),
    ("sd", "controlnet"),
    ("sdxl", "text"),
    ("sdxl", "image"),
    ("sdxl", "inpaint"),
    ("sd3", "text"),
    ("sd3", "image"),
    ("flux", "text"),
    ("pixart-sigma", "text"),
    ("lcm", "image"),
    ("dit", "class"),
)
FLOW = {"sd3": "FlowMatchEulerDiscreteScheduler", "flux": "FlowMatchEulerDiscreteScheduler"}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), CASES)
def test_latents_and_pictures_are_those_of_the_pipeline(family: str, task: str) -> None:
    """Failed at e6859a8 for all but sdxl text."""
    plain = replace(draw_case(1), options={}, steps=2, eta=0.0, strength=1.0, height=64, width=64)
    plain = replace(plain, batch=1, prompts=("a red circle",), negative=None, pictures_each=1)
    plain = replace(plain, seeds=5, lora=False, inversion=0, weights="fp32", precision="fp32")
    draw = replace(
        plain,
        family=family,
        task=task,
        scheduler=FLOW.get(family, "LCMScheduler" if family == "lcm" else "DDIMScheduler"),
        guidance_scale=3.0,
        guidance=True,
        strength=0.5,
        odd=ODD_VAE,
        saved=False,
        subnet=None,
    )
    outcome = try_draw(draw)
    assert outcome.verdict is Verdict.AGREES, outcome
