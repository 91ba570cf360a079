"""The oracle against straightforward eager gating, over odd models and random gates."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dipgo.common.torch_noise import draw_noise
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.unroll import unroll
from dipgo.ir.plan.nodes import PROLOGUE
from dipgo.ir.plan.parse import parse_plan
from dipgo.ir.sampler import draw_name
from dipgo.ir.subnet.subnet import SubNet
from tests.support.compare import relative_error
from tests.support.eager import BACKUPS, run_eagerly
from tests.support.random_subnets import TERMS, filter_rows, weigh_rows
from tests.support.rare import rare_unless
from tests.support.zoo import (
    CASES,
    EVERY_WAY,
    GUIDANCE_CASES,
    NO_PICTURES,
    Case,
    FilterShape,
    case,
    with_filters,
)

TOLERANCE = 1e-5
"""Relative L2, float32: reordering of the sampler's sums is the only difference."""


PROLOGUES = {
    **dict.fromkeys(("no_cross_attention", "unconditional"), 0),
    **dict.fromkeys(("one_level", "asymmetric", "three_levels", "inpainting", "controlnet"), 1),
    "pixart_sigma": 1,
}
"""What runs once a prompt: of the others it depends on the prompt alone, and with the timestep."""

SCHEDULERS = {
    "ddim": DDIMScheduler(clip_sample=False, steps_offset=1),
    "v_prediction": DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "sample": DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "plms": PNDMScheduler(skip_prk_steps=True, steps_offset=1),
    "dpm++": DPMSolverMultistepScheduler(),
    "euler": EulerDiscreteScheduler(),
    "euler-a": EulerAncestralDiscreteScheduler(),
    "lcm": LCMScheduler(),
    "dpm++-sde": DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
    "flow-euler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": UniPCMultistepScheduler(),
    "inverse": DDIMInverseScheduler(clip_sample=False),
    "flow-euler, inverted": FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "kdpm2-a, karras": KDPM2AncestralDiscreteScheduler(use_karras_sigmas=True),
}


@dataclass(frozen=True)
class Drawn:
    """A model, a scheduler and a SubNet with random gates."""

    case: Case = field(repr=False)
    scheduler: object = field(repr=False)
    subnet: SubNet = field(repr=False)
    label: str


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    """Rows may be all 0 (fully reused), all 1, or anything between."""
    name, grain, guidance = draw(st.sampled_from(GUIDANCE_CASES))
    filters = None if name in NO_PICTURES else FilterShape(TERMS, guidance, 3)
    kinds = ["", "weigh", "filter"] if filters else ["", "weigh"]
    chosen = case(name, grain, guidance, filters)
    scheduler = SCHEDULERS[draw(st.sampled_from(sorted(SCHEDULERS)))]
    steps = draw(st.integers(4, 7))
    sampler = probe(scheduler, steps)
    graph = chosen.traced.graph
    blocks = [block.name for block in graph.blocks]
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gates = generator.random((len(sampler.timesteps), len(blocks))) < share
    gates[0] = True
    backup = tuple(
        draw(st.sampled_from(BACKUPS if graph.carriers[block.name] else BACKUPS[:1]))
        for block in graph.blocks
    )
    subnet = SubNet(steps, sampler.timesteps, tuple(blocks), gates, backup)
    weights = random.Random(draw(st.integers(0, 2**32 - 1)))
    halves, kind = guidance and draw(st.booleans()), draw(st.sampled_from(kinds))
    if kind == "weigh":
        subnet = weigh_rows(weights, subnet, halves)
    elif kind == "filter":
        subnet = filter_rows(weights, subnet, halves, chosen.inputs["latents"].shape[1])
        chosen = with_filters(chosen, subnet)
    rows = " ".join("".join("01"[int(gate)] for gate in row) for row in gates)
    return Drawn(chosen, scheduler, subnet, f"{name} {grain} {type(scheduler).__name__} {rows}")


@pytest.fixture(scope="module")
def errors() -> Iterator[list[float]]:
    """Every relative error that is found; `pytest -s` shows the largest and the mean."""
    found: list[float] = []
    yield found
    if found:
        print(f"\n{len(found)} plans: largest {max(found):.1e}, mean {np.mean(found):.1e}")


EXAMPLES = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@settings(EXAMPLES, max_examples=50)
@given(drawn())
def test_oracle_equals_module_hooks(errors: list[float], example: Drawn) -> None:
    check_oracle(errors, example)


@pytest.mark.rare
@settings(EXAMPLES, max_examples=200)
@given(drawn())
def test_oracle_equals_module_hooks_in_more_cases(errors: list[float], example: Drawn) -> None:
    check_oracle(errors, example)


def check_oracle(errors: list[float], example: Drawn) -> None:
    chosen, subnet = example.case, example.subnet
    expected = run_eagerly(chosen, example.scheduler, subnet, torch.Generator().manual_seed(1))
    sampler = probe(example.scheduler, subnet.num_inference_steps)
    draws = draw_noise(1, tuple(chosen.inputs["latents"].shape), [i - 1 for i in sampler.draws])
    noise = {draw_name(index + 1): torch.from_numpy(drawn) for index, drawn in draws.items()}
    plan = unroll(chosen.traced.graph, subnet, sampler)
    divisible = frozenset(block.name for block in chosen.traced.graph.blocks if block.parts)
    in_parts = unroll(chosen.traced.graph, subnet, sampler, divisible)
    for one in (plan, run_passes(plan), run_passes(in_parts)):
        assert parse_plan(str(one)) == one
        errors.append(
            relative_error(interpret(one, chosen.traced, chosen.inputs | noise), expected)
        )
        assert errors[-1] < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "grain"),
    rare_unless(lambda name, grain: grain == "block" or name in EVERY_WAY, CASES),
)
def test_dense_plan_is_one_segment_and_a_prologue(name: str, grain: str) -> None:
    """Whatever the sampler: one segment is called at every step, the others once a prompt."""
    chosen = case(name, grain)
    blocks = [block.name for block in chosen.traced.graph.blocks]
    for scheduler in SCHEDULERS.values():
        sampler = probe(scheduler, 5)
        subnet = SubNet.dense(sampler.timesteps, blocks, num_inference_steps=5)
        plan = run_passes(unroll(chosen.traced.graph, subnet, sampler))
        in_loop = {call.callee for call in plan.calls if call.step != PROLOGUE}
        (segment,) = (callee for callee in plan.callees if callee.name in in_loop)
        assert set(blocks) <= set(segment.members)
        once = [call.callee for call in plan.calls if call.step == PROLOGUE]
        assert len(once) == len(set(once)) == len(plan.callees) - 1
        assert len(once) == PROLOGUES.get(name, 2)
