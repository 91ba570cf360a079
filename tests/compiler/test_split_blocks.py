"""Blocks in parts: what no step needs is not computed, and nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from dipgo.compiler import split_blocks as granularity
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.split_blocks import choose_split_blocks
from dipgo.compiler.unroll import unroll
from dipgo.engines import load
from dipgo.export import export
from dipgo.ir.graph import BlockGraph
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.model import Source
from tests.support.architectures import trace_architecture
from tests.support.compare import relative_error
from tests.support.eager import run_eagerly
from tests.support.zoo import ZOO, case

DDIM = DDIMScheduler(clip_sample=False)
STEPS = 6


def deepcache(graph: BlockGraph, sampler: Sampler) -> SubNet:
    """All at step 0, then the outermost blocks only: the last reads the first one's skips."""
    names = tuple(block.name for block in graph.blocks)
    gates = np.zeros((len(sampler.timesteps), len(names)), dtype=bool)
    gates[0], gates[:, 0], gates[:, -1] = True, True, True
    return SubNet(STEPS, sampler.timesteps, names, gates, ("output",) * len(names))


@pytest.fixture
def cheap_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models have no part that is worth a call."""
    monkeypatch.setattr(granularity, "CALL_MACS", 0)


def test_a_part_of_sd15_that_no_step_needs_is_not_computed() -> None:
    """DeepCache's kind of gates: the outer down block's downsampler feeds reused blocks only."""
    graph, sampler = trace_architecture("sd15", UNetFamily()).graph, probe(DDIM, STEPS)
    subnet = deepcache(graph, sampler)
    split = choose_split_blocks(graph, subnet, sampler)
    assert split == {"down_blocks.0"}
    whole, in_parts = (run_passes(unroll(graph, subnet, sampler, one)) for one in ((), split))
    downsampler = 32 * 32 * 9 * 320 * 320
    assert plan_cost(whole).macs - plan_cost(in_parts).macs == (STEPS - 1) * downsampler
    assert len(in_parts.callees) == len(whole.callees)
    weights = [sum(callee.parameters for callee in plan.callees) for plan in (whole, in_parts)]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.usefixtures("cheap_calls")
def test_blocks_in_parts_equal_module_hooks(tmp_path: Path) -> None:
    """The oracle, and ONNX Runtime."""
    chosen, sampler = case("three_levels", "block"), probe(DDIM, STEPS)
    graph = chosen.traced.graph
    subnet = deepcache(graph, sampler)
    split = choose_split_blocks(graph, subnet, sampler)
    assert split
    plan = run_passes(unroll(graph, subnet, sampler, split))
    expected = run_eagerly(chosen, DDIM, subnet)
    assert relative_error(interpret(plan, chosen.traced, chosen.inputs), expected) < 1e-5
    export(
        Source("zoo", chosen.denoiser, ZOO["three_levels"].family, DDIM, 8, tokens=7),
        subnet,
        tmp_path / "out",
    )
    runner = load(tmp_path / "out")
    members = {name for callee in runner.export.plan.callees for name in callee.members}
    assert {"down_blocks.0~0", "down_blocks.0~1"} <= members
    found = runner.run({name: tensor.numpy() for name, tensor in chosen.inputs.items()})
    assert relative_error(torch.from_numpy(found["latents"]), expected) < 1e-5


def test_a_part_that_is_not_worth_a_call_stays_in_its_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At step 1 down_blocks.1 needs the downsampler, at step 2 up_blocks.2: its own segment."""
    graph, sampler = trace_architecture("sd15", UNetFamily()).graph, probe(DDIM, STEPS)
    gates = deepcache(graph, sampler).gates.copy()
    gates[1, 1] = gates[2, 7] = True
    subnet = replace(deepcache(graph, sampler), gates=gates)
    assert "down_blocks.0" in choose_split_blocks(graph, subnet, sampler)
    monkeypatch.setattr(granularity, "CALL_MACS", 10**12)
    assert "down_blocks.0" not in choose_split_blocks(graph, subnet, sampler)


@pytest.mark.usefixtures("cheap_calls")
def test_splitting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no finer segment allowed, only parts that join segments that there are stay split."""
    graph, sampler = case("three_levels", "block").traced.graph, probe(DDIM, STEPS)
    subnet = deepcache(graph, sampler)
    monkeypatch.setattr(granularity, "MAX_FINER_SEGMENTS", 0)
    plan = run_passes(unroll(graph, subnet, sampler, choose_split_blocks(graph, subnet, sampler)))
    whole = run_passes(unroll(graph, subnet, sampler))
    assert len(plan.callees) <= len(whole.callees)
