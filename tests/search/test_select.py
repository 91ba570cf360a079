"""From scores to gates: every selection keeps the share that was asked for, and no more."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import find_passes, run_passes
from dipgo.compiler.unroll import unroll
from dipgo.search.cost.budget import Scores, order_by_score
from dipgo.search.cost.count_calls import Bools
from dipgo.search.cost.model import CostModel, macs_weights
from dipgo.search.cost.select import (
    TOLERANCE,
    bisect_threshold,
    fill_budget,
    prune_dead,
    sweep_threshold,
)
from tests.support.handmade import UNET, euler, subnet
from tests.support.random_block_graphs import random_chain, random_unet
from tests.support.random_subnets import _probed, random_subnet
from tests.support.zoo import case

SELECTIONS = [bisect_threshold, sweep_threshold, fill_budget]
each_selection = pytest.mark.parametrize("select", SELECTIONS)
Select = Callable[..., Bools]


@cache
def model_of(shape: str, steps: int, scheduler: str = "ddim", backup: str = "output") -> CostModel:
    """A cost model of a U-Net or a transformer with a MAC for every node."""
    make = {"unet": random_unet, "chain": random_chain}[shape]
    graph = make(random.Random(3))
    words = tuple(backup if graph.carriers[one.name] else "output" for one in graph.blocks)
    blocks = tuple(block.name for block in graph.blocks)
    return CostModel(graph, _probed(scheduler, steps), blocks, words, macs_weights(graph))


def handmade(steps: int) -> CostModel:
    made = subnet(*["111"] * steps)
    return CostModel(UNET, euler(steps), made.blocks, made.backup, macs_weights(UNET))


def random_scores(draw: random.Random, shape: tuple[int, int]) -> Scores:
    """Of each gate alone; or of whole steps; with few different values; or all the same."""
    generator = np.random.default_rng(draw.randrange(2**32))
    each, step = generator.random(shape), generator.random((shape[0], 1))
    kinds = [each, np.clip(step + 0.1 * each, 0, 1), each.round(1), each.round(), np.ones(shape)]
    return draw.choice(kinds)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from(["unet", "chain"]),
    scheduler=st.sampled_from(["ddim", "plms"]),
    target=st.sampled_from([0.15, 0.2, 0.35, 0.5, 0.8, 0.95, 1.0]),
)
@each_selection
def test_the_share_asked_for_is_kept(
    select: Select, seed: int, shape: str, scheduler: str, target: float
) -> None:
    """Also where rows come as one, and where all scores are equal."""
    model = model_of(shape, 30, scheduler)
    scores = random_scores(random.Random(seed), model.shape)
    gates = select(scores, model, target)
    assert gates[0].all()
    most = min(target, model.kept(np.ones(model.shape, dtype=bool)))
    assert most - TOLERANCE < model.kept(gates) <= target + 1e-9
    assert np.array_equal(prune_dead(gates, model), gates)
    assert np.array_equal(select(scores, model, target), gates)


@each_selection
@pytest.mark.parametrize("backup", ["delta", "identity"])
def test_other_backups(select: Select, backup: str) -> None:
    model = model_of("chain", 20, backup=backup)
    for seed in range(3):
        scores = random_scores(random.Random(seed), model.shape)
        gates = select(scores, model, 0.5)
        assert 0.5 - TOLERANCE < model.kept(gates) <= 0.5


@each_selection
def test_overshoot_only_where_it_is_allowed(select: Select) -> None:
    model, over = model_of("unet", 30), 0
    for seed in range(20):
        scores = np.random.default_rng(seed).random(model.shape)
        kept = model.kept(select(scores, model, 0.4, allow_overshoot=True))
        assert abs(kept - 0.4) < TOLERANCE
        over += kept > 0.4
    assert over


def test_a_threshold_leaves_gates_of_a_score_together() -> None:
    """Steps with scores of their own: those from a threshold on are kept, the others reused."""
    model = model_of("unet", 50)
    scores = np.repeat(np.random.default_rng(0).permutation(50)[:, None] / 50, model.shape[1], 1)
    gates = bisect_threshold(scores, model, 0.41)
    kept = gates[1:].all(axis=1)
    assert np.array_equal(gates[1:].any(axis=1), kept)
    assert scores[1:][kept].min() > scores[1:][~kept].max()
    assert kept.sum() == 19


def test_the_sweep_takes_the_cascade_out() -> None:
    """The last block alone is to be reused at step 2: with it goes all that only it reads."""
    model = handmade(20)
    scores = np.ones(model.shape)
    scores[2, 2] = 0.0
    gates = sweep_threshold(scores, model, 0.95)
    assert not gates[2].any()
    assert gates[[*range(2), *range(3, 20)]].all()


def test_the_sweep_goes_by_blocks_from_the_last() -> None:
    """All scores above the first threshold: up0, with its cascade, before down0 alone."""
    model = handmade(40)
    scores = np.zeros(model.shape)
    scores[1:, 2] = np.linspace(0.0, 0.04, 39)
    gates = sweep_threshold(scores, model, 0.5)
    assert gates[1:21].sum() == 0
    assert gates[21:].all()


def test_filling_takes_what_still_fits() -> None:
    """Whole steps do not fit any more, but their last blocks do."""
    model = model_of("unet", 30)
    scores = np.repeat(np.random.default_rng(1).random((30, 1)), model.shape[1], 1)
    filled = model.kept(fill_budget(scores, model, 0.39))
    assert 0.39 - 1 / (30 * len(model.graph.nodes)) - 0.005 < filled <= 0.39


def test_of_equal_scores_the_last_goes_first() -> None:
    scores = np.array([[0.1, 0.1], [0.5, 0.2], [0.5, 0.5]])
    assert order_by_score(scores).tolist() == [3, 5, 4, 2]


@each_selection
def test_what_granularity_does_not_permit_is_told(select: Select) -> None:
    """Four steps of three blocks: 0.33 to 0.38 cannot be, and both ratios that are named can."""
    model, scores = handmade(4), np.ones((4, 3))
    with pytest.raises(DipgoError, match=r"^ratio: found 0\.70.*nearest found are") as caught:
        select(scores, model, 0.3)
    named = [float(number) for number in re.findall(r"0\.\d+", caught.value.remedy)]
    assert len(named) == 2
    below = 1 - named[0]
    assert model.kept(select(scores, model, below)) <= below


@each_selection
def test_less_than_the_first_step_cannot_be_kept(select: Select) -> None:
    model = handmade(4)
    with pytest.raises(DipgoError, match=r"^ratio.*0\.2500, the least that can be reached"):
        select(np.ones((4, 3)), model, 0.2)
    assert select(np.ones((4, 3)), model, 0.25).sum() == 3
    assert select(np.zeros((4, 3)), model, 1.0).all()


@each_selection
@pytest.mark.parametrize("scores", [np.ones((3, 3)), np.full((4, 3), np.nan), np.full((4, 3), 2.0)])
def test_scores_are_checked(select: Select, scores: Scores) -> None:
    with pytest.raises(DipgoError, match=r"^scores: .*from 0 to 1"):
        select(scores, handmade(4), 0.5)


@pytest.mark.parametrize(("name", "grain"), [("three_levels", "block"), ("dit", "block")])
def test_pruning_dead_gates_changes_nothing_else(name: str, grain: str) -> None:
    """Neither the calls nor a bit of the result, with any backups and samplers."""
    chosen, pruned_any = case(name, grain), 0
    graph = chosen.traced.graph
    passes = find_passes(("number_values", "eliminate_dead_calls"))
    for seed in range(24):
        draw = random.Random(seed)
        sampler = _probed(draw.choice(["ddim", "plms", "dpm++"]), draw.randint(3, 6))
        made = random_subnet(draw, graph, sampler)
        if seed % 2:
            made = replace(made, backup=("output",) * len(made.blocks))
        model = CostModel(graph, sampler, made.blocks, made.backup, macs_weights(graph))
        gates = prune_dead(made.gates, model)
        assert not (gates & ~made.gates).any()
        assert model.kept(gates) == model.kept(made.gates)
        assert np.array_equal(prune_dead(gates, model), gates)
        pruned = replace(made, gates=gates)
        plans = [run_passes(unroll(graph, one, sampler), passes) for one in (made, pruned)]
        assert plans[0].statements == plans[1].statements
        pruned_any += not np.array_equal(gates, made.gates)
        if seed < 4:
            results = [interpret(plan, chosen.traced, chosen.inputs) for plan in plans]
            assert torch.equal(*results)
    assert pruned_any
