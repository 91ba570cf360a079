"""Every rule on a tiny U-Net: its SubNet compiles, means what the SuperNet does, meets a share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.unroll import unroll
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.plan.plan import evaluations
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.schedules.base import TOLERANCE
from dipgo.schedules.block_caching import block_caching
from dipgo.schedules.deepcache import deepcache, deepcache_nonuniform
from dipgo.schedules.faster_diffusion import (
    PRIOR_NOISE,
    faster_diffusion_with,
)
from dipgo.schedules.fewer_steps import fewer_steps, steps_of
from dipgo.schedules.fora import fora
from dipgo.schedules.greedy import greedy, greedy_at_kept
from dipgo.schedules.knapsack import knapsack
from dipgo.schedules.random_gates import random_gates
from dipgo.schedules.smooth_cache import smooth_cache
from dipgo.search.supernet.supernet import SuperNet
from tests.support.tiny_schedules import (
    random_changes,
)
from tests.support.zoo import Case, traced_case

STEPS = 10

TOLERANCE_FP32 = 1e-4

DDIM = DDIMScheduler(clip_sample=False, steps_offset=1)


@cache
def _unet() -> Case:
    return traced_case("three_levels", ("conv_in", *UNetFamily.default_blocks))


@cache
def _sampler(steps: int = STEPS, prior_noise: bool = False) -> Sampler:
    return probe(DDIM, steps, prior_noise=PRIOR_NOISE if prior_noise else None)


def _tiny(steps: int = STEPS) -> SubNet:
    blocks = [block.name for block in _unet().traced.graph.blocks]
    return SubNet.dense(_sampler(steps).timesteps, blocks, num_inference_steps=steps)


def _sampler_of(subnet: SubNet) -> Sampler:
    return _sampler(subnet.num_inference_steps, subnet.prior_noise is not None)


def _kept(subnet: SubNet) -> float:
    return plan_cost(run_passes(unroll(_unet().traced.graph, subnet, _sampler_of(subnet)))).kept


def _macs() -> dict[str, int]:
    return {block.name: block.macs for block in _unet().traced.graph.blocks}


def _losses(dense: SubNet) -> np.ndarray:
    losses = np.random.default_rng(0).random(dense.gates.shape)
    losses[0] = np.inf
    return losses


MAKERS: dict[str, Callable[[SubNet], SubNet]] = {
    "fewer steps": lambda dense: fewer_steps(dense, 4, _sampler(4).timesteps),
    "steps of": lambda dense: steps_of(random_gates(dense, 0.5), _macs(), 4),
    "random": lambda dense: random_gates(dense, 0.4, seed=1),
    "DeepCache": lambda dense: deepcache(dense, 3),
    "DeepCache, branch 2": lambda dense: deepcache(dense, 3, branch=2, layers=2),
    "DeepCache, non-uniform": lambda dense: deepcache_nonuniform(dense, 3),
    "Faster Diffusion": lambda dense: faster_diffusion_with(dense, 4),
    "FORA": lambda dense: fora(dense, 3),
    "Block Caching": lambda dense: block_caching(dense, random_changes(dense), 1.0),
    "SmoothCache": lambda dense: smooth_cache(dense, random_changes(dense), 0.5),
    "greedy": lambda dense: greedy(dense, _losses(dense), 40),
    "knapsack": lambda dense: knapsack(dense, _losses(dense), _macs(), 0.5),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_subnet_compiles(name: str) -> None:
    subnet = MAKERS[name](_tiny())
    assert subnet.provenance["method"]
    assert subnet.gates[0].all()
    if name != "fewer steps":
        assert 0.1 < _kept(subnet) < 1


@pytest.mark.parametrize("name", ["DeepCache", "Faster Diffusion", "knapsack"])
def test_oracle_equals_supernet(name: str) -> None:
    subnet, tiny = MAKERS[name](_tiny()), _unet()
    sampler = _sampler_of(subnet)
    plan = run_passes(unroll(tiny.traced.graph, subnet, sampler))
    net = SuperNet(tiny.traced, sampler, subnet.blocks, subnet.backup)
    with torch.no_grad():
        expected = net(torch.tensor(subnet.gates, dtype=torch.float32), tiny.inputs)
    difference = interpret(plan, tiny.traced, tiny.inputs) - expected
    assert difference.abs().max() <= TOLERANCE_FP32 * expected.abs().max()


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_greedy_and_knapsack_meet_a_kept_share(target: float) -> None:
    dense = _tiny()
    made = greedy_at_kept(dense, _losses(dense), _kept, target)
    assert target - 0.1 < _kept(made) <= target + TOLERANCE
    budget = knapsack(dense, _losses(dense), _macs(), target)
    assert _kept(budget) <= target + TOLERANCE


def test_steps_of_a_subnet_cost_as_many_evaluations() -> None:
    subnet = steps_of(deepcache(_tiny(), 2), _macs(), 3)
    assert evaluations(run_passes(unroll(_unet().traced.graph, subnet, _sampler()))) == 3


def test_schedules_leave_what_a_search_made_of_reuse() -> None:
    """Steps of a searched SubNet, whose rows that are off filter or weigh predictions."""
    subnet = deepcache(_tiny(), 2)
    gates = subnet.gates.copy()
    gates[1:] = False
    off = replace(subnet, gates=gates)
    filters = GapFilters(tuple(range(1, len(gates))), np.ones((1, 4, 4, 3, 3)))
    weights = ((), *((1.5,) for _ in gates[1:]))
    for searched in (replace(off, reuse_filters=(filters,)), replace(off, reuse=weights)):
        for made in (steps_of(searched, _macs(), 2), random_gates(searched, 0.5)):
            assert (made.reuse, made.reuse_filters) == (None, None)
            assert made.gates.sum() > gates.sum()


def test_schedules_import_no_torch() -> None:
    code = """
import importlib, pkgutil, sys, dipgo.schedules
for one in pkgutil.iter_modules(dipgo.schedules.__path__, "dipgo.schedules."):
    importlib.import_module(one.name)
print(*sorted({"torch", "scipy", "onnx"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
