"""Other methods' schedules: published numbers, what their gates are, and that they compile."""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.common.safe_pickle import load_checkpoint
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
from dipgo.schedules.base import TOLERANCE, at_kept, at_kept_by_bisection
from dipgo.schedules.block_caching import block_caching
from dipgo.schedules.deepcache import deepcache, deepcache_nonuniform, nonuniform_steps
from dipgo.schedules.faster_diffusion import (
    DDIM_50_KEY_STEPS,
    DPM_20_KEY_STEPS,
    PRIOR_NOISE,
    faster_diffusion_with,
    scale_key_steps,
)
from dipgo.schedules.fewer_steps import count_steps, fewer_steps, steps_of
from dipgo.schedules.fora import fora
from dipgo.schedules.greedy import greedy, greedy_at_kept
from dipgo.schedules.knapsack import choose_kept, knapsack
from dipgo.schedules.learning_to_cache import learning_to_cache
from dipgo.schedules.random_gates import random_gates
from dipgo.schedules.smooth_cache import component_type, smooth_cache
from dipgo.search.calibrate import Changes
from dipgo.search.supernet.supernet import SuperNet
from tests.support.zoo import Case, traced_case

STEPS = 10
TOLERANCE_FP32 = 1e-4
DDIM = DDIMScheduler(clip_sample=False, steps_offset=1)
DOWN, UP = ([f"{side}_blocks.{k}" for k in range(4)] for side in ("down", "up"))
SD15 = (*DOWN, "mid_block", *UP)


def _dense(blocks: tuple[str, ...] = SD15, steps: int = 50) -> SubNet:
    return SubNet.dense(range(steps, 0, -1), blocks, num_inference_steps=steps)


def _rows(subnet: SubNet) -> list[str]:
    return ["".join("01"[int(gate)] for gate in row) for row in subnet.gates]


def _full(subnet: SubNet) -> list[int]:
    return np.flatnonzero(subnet.gates.all(axis=1)).tolist()


# --- on a tiny U-Net


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


def _changes(dense: SubNet) -> Changes:
    relative = np.random.default_rng(1).random((3, *dense.gates.shape))
    return Changes(dense.blocks, relative)


MAKERS: dict[str, Callable[[SubNet], SubNet]] = {
    "fewer steps": lambda dense: fewer_steps(dense, 4, _sampler(4).timesteps),
    "steps of": lambda dense: steps_of(random_gates(dense, 0.5), _macs(), 4),
    "random": lambda dense: random_gates(dense, 0.4, seed=1),
    "DeepCache": lambda dense: deepcache(dense, 3),
    "DeepCache, branch 2": lambda dense: deepcache(dense, 3, branch=2, layers=2),
    "DeepCache, non-uniform": lambda dense: deepcache_nonuniform(dense, 3),
    "Faster Diffusion": lambda dense: faster_diffusion_with(dense, 4),
    "FORA": lambda dense: fora(dense, 3),
    "Block Caching": lambda dense: block_caching(dense, _changes(dense), 1.0),
    "SmoothCache": lambda dense: smooth_cache(dense, _changes(dense), 0.5),
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


# --- at a kept share


def test_at_kept_takes_the_nearest_that_is_not_above() -> None:
    shares = {1: 1.0, 2: 0.6, 3: 0.51, 4: 0.48, 5: 0.2}
    made = {n: fora(_dense(steps=10), n) for n in shares}
    kept = {id(subnet): shares[n] for n, subnet in made.items()}.__getitem__
    for target, chosen in [(0.5, 3), (0.49, 4), (0.62, 2), (0.58, 3), (0.2, 5), (1.0, 1)]:
        for find in (at_kept, at_kept_by_bisection):
            found = find(made.__getitem__, sorted(shares), lambda s: kept(id(s)), target)
            assert found is made[chosen], (target, find)


def test_at_kept_tells_what_cannot_be_met() -> None:
    with pytest.raises(DipgoError, match=r"found 0\.200 with the cheapest"):
        at_kept(lambda n: fora(_dense(steps=10), n), [1, 5], lambda subnet: subnet.kept, 0.1)


# --- each method


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


def test_count_of_steps_is_the_largest_that_is_not_above() -> None:
    assert count_steps(0.2, 50) == 10
    assert count_steps(0.239, 50) == 11
    assert count_steps(0.2, 50, lambda steps: steps + 1) == 9  # PNDM: 10 of 51 are below 0.2
    with pytest.raises(DipgoError, match="fewer steps"):
        count_steps(0.01, 50)


def test_steps_of_takes_the_busiest_rows() -> None:
    gates = np.zeros((6, 9), dtype=bool)
    gates[0] = gates[4] = True
    gates[2, 8] = True
    subnet = SubNet(6, range(6, 0, -1), SD15, gates, ("output",) * 9)
    macs = dict.fromkeys(SD15, 1)
    assert _full(steps_of(subnet, macs, 3)) == [0, 2, 4]
    assert _rows(steps_of(subnet, macs, 1))[1:] == ["0" * 9] * 5
    assert _full(steps_of(_dense(steps=9), macs, 3)) == [0, 4, 8]  # equal rows are spread


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_random_gates_are_nested(one: float, other: float, seed: int) -> None:
    fewer, more = (random_gates(_dense(), s, seed=seed) for s in sorted((one, other)))
    assert not (fewer.gates & ~more.gates).any()
    assert more.gates.sum() == max(int(max(one, other) * 450 + 1e-9), 9)


def test_deepcache_runs_the_last_up_block_between_full_steps() -> None:
    subnet = deepcache(_dense(("conv_in", *SD15)), 5)
    assert _full(subnet) == list(range(0, 50, 5))
    assert _rows(subnet)[1] == "1000000001"
    assert _rows(deepcache(_dense(), 5, branch=1))[1] == "100000001"
    assert _rows(deepcache(_dense(), 5, branch=3))[1] == "100000011"
    assert _rows(deepcache(_dense(), 5, branch=5))[1] == "110000011"


def test_deepcache_branches_into_layers() -> None:
    """Branch 1: the first layer of the first down block, and the last two of the last up block."""
    kinds = ["resnets", "attentions"]
    layers = [
        *product(["down_blocks.0", "down_blocks.1"], kinds, range(2)),
        ("down_blocks.0", "downsamplers", 0),
        *product(["up_blocks.0", "up_blocks.1"], kinds, range(3)),
        ("up_blocks.0", "upsamplers", 0),
    ]
    blocks = tuple(f"{block}.{kind}.{layer}" for block, kind, layer in layers)
    last = {f"up_blocks.1.{kind}.2" for kind in kinds}
    middle = {f"up_blocks.1.{kind}.1" for kind in kinds}
    first = {f"down_blocks.0.{kind}.0" for kind in kinds}
    inner = {*(f"up_blocks.{k}.{kind}.{2 - 2 * k}" for k in (0, 1) for kind in kinds)}
    outer = {block for block in blocks if block.startswith(("down_blocks.0", "up_blocks.1"))}
    inner |= outer | {"up_blocks.0.upsamplers.0"}
    for branch, wanted in [(0, last), (1, last | middle | first), (3, inner)]:
        row = deepcache(_dense(blocks), 2, branch=branch).gates[1]
        assert {block for block, on in zip(blocks, row, strict=True) if on} == wanted


def test_deepcache_nonuniform_is_the_published_one() -> None:
    published = [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]
    assert nonuniform_steps(50, 5, centre=15, power=1.4) == published
    assert _full(deepcache_nonuniform(_dense(), 5)) == published


@given(st.integers(2, 100), st.integers(1, 20))
@settings(deadline=None)
def test_deepcache_nonuniform_has_as_many_steps(steps: int, interval: int) -> None:
    try:
        full = nonuniform_steps(steps, interval, centre=round(0.3 * steps), power=1.4)
    except DipgoError:
        return
    assert full[0] == 0
    assert len(set(full)) == -(-steps // interval)
    assert full == sorted(full)
    assert full[-1] < steps


def test_deepcache_needs_a_unet() -> None:
    with pytest.raises(DipgoError, match="expected blocks of a U-Net"):
        deepcache(_dense(("transformer_blocks.0", "transformer_blocks.1")), 2)
    with pytest.raises(DipgoError, match="take a lower branch"):
        deepcache(_dense(UP), 2, branch=11)


def test_key_steps_are_the_published_ones() -> None:
    for steps, published in [(50, DDIM_50_KEY_STEPS), (20, DPM_20_KEY_STEPS)]:
        subnet = faster_diffusion_with(_dense(("conv_in", *SD15), steps), len(published))
        assert _full(subnet) == list(published)
        assert set(_rows(subnet)) == {"1" * 10, "0000001111"}
    doubled = tuple(2 * key for key in DDIM_50_KEY_STEPS)
    assert scale_key_steps(DDIM_50_KEY_STEPS, 50, 100, 9) == doubled


@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
@settings(deadline=None)
def test_key_steps_are_as_many_as_asked_for(case_: tuple[int, int]) -> None:
    steps, count = case_
    keys = scale_key_steps(DDIM_50_KEY_STEPS, 50, steps, count)
    assert len(keys) == count
    assert keys[0] == 0
    assert all(before < after for before, after in pairwise(keys))
    assert keys[-1] < steps


def test_fora_recomputes_what_matches() -> None:
    blocks = ("pos_embed", "transformer_blocks.0.attn1", "transformer_blocks.0.ff")
    assert _rows(fora(_dense(blocks, 5), 2)) == ["111", "000", "111", "000", "111"]
    cached = fora(_dense(blocks, 4), 3, ["transformer_blocks.*"])
    assert _rows(cached) == ["111", "100", "100", "111"]
    with pytest.raises(DipgoError, match="no block that it matches"):
        fora(_dense(blocks, 4), 3, ["up_blocks.*"])
    with pytest.raises(DipgoError, match="interval"):
        fora(_dense(blocks, 4), 0)


def test_block_caching_by_hand() -> None:
    relative = np.full((1, 6, 2), np.nan)
    relative[0, 1:, 0] = [0.2, 0.2, 0.2, 0.6, 0.1]  # 0.2, 0.4, then over 0.5; over at once; 0.1
    relative[0, 1:, 1] = 0.0
    dense = _dense(("mid_block", "up_blocks.0"), 6)
    subnet = block_caching(dense, Changes(dense.blocks, relative), 0.5)
    assert _rows(subnet) == ["11", "00", "00", "10", "10", "00"]


def test_smooth_cache_by_hand() -> None:
    blocks = ("up_blocks.0", "up_blocks.1", "mid_block")
    relative = np.full((2, 8, 3), np.nan)
    relative[0, 1:, 0] = [0.0, 0.2, 0.0, 0.4, 0.0, 0.2, 0.2]
    relative[0, 1:, 1] = [0.2, 0.0, 0.4, 0.0, 0.2, 0.0, 0.0]  # means 0.1 0.1 0.2 0.2 0.1 0.1 0.1
    relative[1, 2:, :2] = np.array([0.15, 0.3, 0.3, 0.16, 0.3, 0.1])[:, None]
    relative[:, :, 2] = 9.0
    dense = _dense(blocks, 8)
    subnet = smooth_cache(dense, Changes(blocks, relative), 0.15)
    # From 0 lag 2 will do; from 3 none; from 4 lag 1; from 6 lag 1, but the last is forced.
    assert _rows(subnet) == ["111", "001", "001", "111", "111", "001", "111", "111"]
    assert component_type("up_blocks.3.resnets.0") == "up_blocks.*.resnets.*"


def test_calibration_of_other_blocks_is_refused() -> None:
    changes = _changes(_dense(("mid_block",), 6))
    with pytest.raises(DipgoError, match="calibrate with the blocks"):
        smooth_cache(_dense(steps=6), changes, 0.1)
    with pytest.raises(DipgoError, match="6 × 1"):
        block_caching(_dense(("mid_block",), 7), changes, 0.1)


def test_greedy_takes_the_least_losses_out() -> None:
    dense = _dense(("mid_block", "up_blocks.0"), 3)
    losses = np.array([[0.0, 0.0], [3.0, 1.0], [2.0, 4.0]])
    assert _rows(greedy(dense, losses, 2)) == ["11", "10", "01"]


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_knapsack_equals_brute_force(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    values = np.array(data.draw(st.lists(st.floats(0, 10), min_size=count, max_size=count)))
    weights = np.array(data.draw(st.lists(st.integers(0, 60), min_size=count, max_size=count)))
    budget = data.draw(st.integers(-5, 200))
    kept = choose_kept(values, weights, budget)
    choices = np.array(list(product([0, 1], repeat=count)))
    allowed = choices[choices @ weights <= max(budget, 0)] if budget >= 0 else choices[:1]
    assert weights[kept].sum() <= max(budget, 0)
    assert np.isclose(values[kept].sum(), (allowed @ values).max())


@given(st.lists(st.integers(10**6, 10**9), min_size=2, max_size=12), st.floats(0, 1))
@settings(deadline=None)
def test_coarse_knapsack_keeps_to_its_budget(macs: list[int], share: float) -> None:
    weights = np.array(macs)
    budget = int(share * weights.sum())
    kept = choose_kept(np.ones(len(macs)), weights, budget, cells=512)
    assert weights[kept].sum() <= budget


def test_learning_to_cache_reads_a_router(tmp_path: object) -> None:
    """Logits over 4 steps, last step first; only even ones (counted so) may reuse."""
    blocks = ("transformer_blocks.0.attn1", "transformer_blocks.0.ff")
    path = f"{tmp_path}/router.pt"
    routers = torch.nn.ModuleList([_Router(k) for k in ([-9.0, 9.0], [-9, -9], [9, -9], [0, 0])])
    torch.save({"routers": routers.state_dict(), "args": argparse.Namespace(lr=0.01)}, path)
    subnet = learning_to_cache(path, _dense(blocks, 4))
    assert _rows(subnet) == ["11", "10", "11", "01"]
    with pytest.raises(DipgoError, match="4 steps of 2 attentions and MLPs"):
        learning_to_cache(path, _dense(blocks, 5))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_broken_checkpoints_are_refused_or_read(data: st.DataObject) -> None:
    saved = io.BytesIO()
    torch.save({"routers": {"0.prob": torch.ones(2)}}, saved)
    content = bytearray(saved.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DipgoError):
        load_checkpoint(whole, name="router.pt")


class _Router(torch.nn.Module):
    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.prob = torch.nn.Parameter(torch.tensor(logits, dtype=torch.float32))


@pytest.mark.parametrize("content", [b"", b"PK", "code"])
def test_learning_to_cache_refuses_other_files(tmp_path: object, content: bytes | str) -> None:
    path = f"{tmp_path}/router.pt"
    if content == "code":
        torch.save({"routers": subprocess.run}, path)
    else:
        with open(path, "wb") as file:
            file.write(content)  # type: ignore[arg-type]
    with pytest.raises(DipgoError, match=r"router\.pt: found"):
        learning_to_cache(path, _dense(("mid_block",), 4))


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
