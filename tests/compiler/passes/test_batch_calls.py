"""Faster Diffusion as the proof of horizontal batching: parallel decoding comes out of a pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from dipgo.common.errors import DipgoError
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import OPTIMISE, run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.unroll import unroll
from dipgo.engines import load
from dipgo.export import export
from dipgo.ir.plan.nodes import PROLOGUE, Combine
from dipgo.ir.plan.plan import Plan
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.schedules.faster_diffusion import PRIOR_NOISE, faster_diffusion
from tests.support.compare import relative_error
from tests.support.eager import run_eagerly
from tests.support.zoo import ZOO, Case, traced_case

STEPS = 50
DECODED = (1, 1, 1, 2, 5, 5, 10, 10, 15)
"""Steps that each key step decodes, its own included; as in the paper."""
TOLERANCE = 1e-5
OUTPUT = "glue.conv_norm_out"
"""What the glue after the last block is called, in which the prediction is made."""
EXAMPLE = Path(__file__).parents[3] / "examples" / "subnets" / "sd15-faster-diffusion.json"
MODELS = ("one_level", "three_levels", "controlnet")
DDIM = DDIMScheduler(clip_sample=False, steps_offset=1)
SEQUENTIAL = tuple(one for one in OPTIMISE if one.name != "batch_calls")


def _case(name: str) -> Case:
    return traced_case(name, ("conv_in", *ZOO[name].family.default_blocks))


def _subnet(case: Case, scheduler: object = DDIM) -> SubNet:
    blocks = [block.name for block in case.traced.graph.blocks]
    timesteps = probe(scheduler, STEPS).timesteps
    return faster_diffusion(blocks, timesteps, num_inference_steps=STEPS)


def _unrolled(case: Case, scheduler: object = DDIM) -> Plan:
    sampler = probe(scheduler, STEPS, prior_noise=PRIOR_NOISE)
    return unroll(case.traced.graph, _subnet(case, scheduler), sampler)


@pytest.mark.parametrize("name", MODELS)
def test_encoders_run_at_key_steps_and_decoders_in_batches(name: str) -> None:
    plan = run_passes(_unrolled(_case(name)))
    loop = [call for call in plan.calls if call.step != PROLOGUE]
    decoder = next(callee.name for callee in plan.callees if callee.stacked)
    decoders = [call.width for call in loop if call.callee == decoder]
    encoders = [call.width for call in loop if call.callee != decoder]
    assert decoders == list(DECODED)
    assert encoders == [1] * len(DECODED)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scheduler", [DDIM, EulerDiscreteScheduler(), PNDMScheduler()])
def test_batched_equals_sequential_equals_hooks(name: str, scheduler: object) -> None:
    """The oracle, over the real scheduler with prior noise added in the loop."""
    case = _case(name)
    expected = run_eagerly(case, scheduler, _subnet(case, scheduler))
    plan = _unrolled(case, scheduler)
    sequential = interpret(run_passes(plan, SEQUENTIAL), case.traced, case.inputs)
    batched = interpret(run_passes(plan), case.traced, case.inputs)
    assert torch.equal(batched, sequential)
    assert relative_error(batched, expected) < TOLERANCE


def test_prior_noise_is_a_term_of_the_samplers_updates() -> None:
    """One update a step, from the last state, its prediction, and the initial noise if t < 500."""
    plan = _unrolled(_case("one_level"))
    start, *updates = (one for one in plan.statements if isinstance(one, Combine))
    assert (start.terms, len(updates)) == (((1.0, plan.state),), STEPS)
    for update in updates:
        names = [name for _, name in update.terms]
        step = plan.steps[update.step] if update.step < STEPS else None
        assert (plan.state in names) == (step is not None and step.timestep < PRIOR_NOISE.below)
        assert names[:2] == [f"s{update.step - 1}.latents", f"s{update.step - 1}.{OUTPUT}"]


@pytest.mark.slow
def test_engines_equal_hooks(tmp_path: Path) -> None:
    """The decoder's one graph at widths 1, 2, 5, 10 and 15, on ONNX Runtime."""
    case = _case("one_level")
    subnet = _subnet(case)
    source = Source("zoo", case.denoiser, ZOO["one_level"].family, DDIM, 8, tokens=7)
    inputs = {name: tensor.numpy() for name, tensor in case.inputs.items()}
    export(source, subnet, tmp_path / "batched")
    export(source, subnet, tmp_path / "sequential", passes=[one.name for one in SEQUENTIAL])
    batched, sequential = (
        torch.from_numpy(load(tmp_path / name).run(inputs)["latents"])
        for name in ("batched", "sequential")
    )
    assert relative_error(batched, sequential) < TOLERANCE
    assert relative_error(batched, run_eagerly(case, DDIM, subnet)) < TOLERANCE


def test_the_example_is_the_schedule() -> None:
    example = SubNet.load(EXAMPLE)
    assert example.prior_noise == PRIOR_NOISE
    assert example == faster_diffusion_of(example)


def faster_diffusion_of(example: SubNet) -> SubNet:
    """The schedule for the example's blocks and timesteps."""
    made = faster_diffusion(
        example.blocks, example.timesteps, num_inference_steps=example.num_inference_steps
    )
    return SubNet(
        made.num_inference_steps,
        made.timesteps,
        made.blocks,
        made.gates,
        made.backup,
        example.model,
        example.scheduler,
        provenance=example.provenance,
        prior_noise=made.prior_noise,
    )


def test_conv_in_must_be_a_block() -> None:
    with pytest.raises(DipgoError, match="name conv_in as a block"):
        faster_diffusion(["mid_block", "up_blocks.0"], [3.0, 1.0], num_inference_steps=2)


def test_key_steps_must_be_steps() -> None:
    with pytest.raises(DipgoError, match="expected 0, and others below 2"):
        faster_diffusion(["conv_in", "up_blocks.0"], [3.0, 1.0], num_inference_steps=2)
