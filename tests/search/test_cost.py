"""The cost of a SubNet without a plan is the cost of its plan; what dies with a block."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.compiler import split_blocks as granularity
from dipgo.compiler.passes import OPTIMISE, find_passes, run_passes
from dipgo.compiler.split_blocks import choose_split_blocks
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import BlockGraph
from dipgo.ir.plan.cost import PlanCost, plan_cost
from dipgo.ir.plan.plan import Plan
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.search.cost.cascade import cascade_shares, dying_with
from dipgo.search.cost.model import (
    CostModel,
    GapCost,
    latency_weights,
    macs_weights,
    parameter_weights,
)
from dipgo.search.fit_gaps import find_gaps
from dipgo.search.problem import Problem
from tests.support.architectures import trace_architecture
from tests.support.handmade import UNET, euler, subnet
from tests.support.random_block_graphs import random_chain, random_unet
from tests.support.random_graphs import random_graph
from tests.support.random_subnets import SCHEDULERS, _probed, random_sampler, random_subnet
from tests.support.zoo import CASES, FilterShape, case

PASSES = find_passes(
    ("number_values", "eliminate_dead_calls", "fuse_steps", "fold_timesteps", "hoist_prompt_work")
)
"""All that remove calls; the others only group and batch them."""


def cost_model(
    graph: BlockGraph, made: SubNet, sampler: Sampler, weights: Mapping[str, float] | None = None
) -> CostModel:
    return CostModel(graph, sampler, made.blocks, made.backup, weights or macs_weights(graph))


def cost_of_plan(graph: BlockGraph, made: SubNet, sampler: Sampler) -> PlanCost:
    return plan_cost(run_passes(unroll(graph, made, sampler), PASSES))


def macs_executed(graph: BlockGraph, made: SubNet, sampler: Sampler) -> int:
    calls = cost_model(graph, made, sampler).executed(made.gates).sum(axis=0)
    return sum(int(count) * node.macs for count, node in zip(calls, graph.nodes, strict=True))


ALL_STEPS_COUNT = sorted(set(SCHEDULERS) - {"sample"})
"""Whose result depends on the first prediction, whatever the gates."""


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), scheduler=st.sampled_from(ALL_STEPS_COUNT))
@pytest.mark.parametrize(("name", "grain"), CASES)
def test_kept_is_that_of_the_plan(name: str, grain: str, seed: int, scheduler: str) -> None:
    """Exactly: PNDM repeats a row, DPM++ looks back, Heun evaluates timesteps twice."""
    graph, draw = case(name, grain).traced.graph, random.Random(seed)
    sampler = _probed(scheduler, draw.randint(3, 7))
    made = random_subnet(draw, graph, sampler)
    assert cost_model(graph, made, sampler).kept(made.gates) == (
        cost_of_plan(graph, made, sampler).kept
    )


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), chain=st.booleans())
def test_kept_is_that_of_the_plan_in_shapes_of_denoisers(seed: int, chain: bool) -> None:
    draw = random.Random(seed)
    graph = random_chain(draw) if chain else random_unet(draw, draw.choice(("glue", "block")))
    sampler = _probed(draw.choice(("ddim", "plms", "dpm++")), draw.randint(3, 7))
    made = random_subnet(draw, graph, sampler)
    assert cost_model(graph, made, sampler).kept(made.gates) == (
        cost_of_plan(graph, made, sampler).kept
    )


@pytest.mark.parametrize("graph_seed", range(10))
def test_calls_are_those_of_the_plan_for_any_recurrence(graph_seed: int) -> None:
    """Rows that come again and states that are copies: calls repeat much older ones.

    Only the calls are compared: a plan that never calls a block leaves it out of the dense one.
    """
    graph = random_graph(graph_seed).traced.graph
    for seed in range(25):
        draw = random.Random(seed)
        sampler = random_sampler(draw)
        made = random_subnet(draw, graph, sampler)
        assert macs_executed(graph, made, sampler) == cost_of_plan(graph, made, sampler).macs


@pytest.mark.parametrize("backup", ["output", "identity", "delta"])
@pytest.mark.parametrize(("name", "grain"), [("three_levels", "block"), ("dit", "layer")])
def test_executed_calls_are_those_of_the_plan(name: str, grain: str, backup: str) -> None:
    """Each call, by node and evaluation, with the prompt's work where it is first needed."""
    graph, sampler = case(name, grain).traced.graph, _probed("plms", 6)
    words = tuple(backup if graph.carriers[one.name] else "output" for one in graph.blocks)
    for seed in range(20):
        made = replace(random_subnet(random.Random(seed), graph, sampler), backup=words)
        plan = run_passes(unroll(graph, made, sampler), PASSES[:-1])
        executed = cost_model(graph, made, sampler).executed(made.gates)
        names = [node.name for node in graph.nodes]
        found = {(int(step), names[node]) for step, node in np.argwhere(executed)}
        assert found == {(call.step, call.callee) for call in plan.calls}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    scheduler=st.sampled_from(["ddim", "plms", "dpm++", "heun", "unipc"]),
    halves=st.booleans(),
)
@pytest.mark.parametrize(("name", "grain"), [("one_level", "block"), ("dit", "layer")])
def test_filters_cost_what_they_cost_in_the_plan(
    name: str, grain: str, seed: int, scheduler: str, halves: bool
) -> None:
    """Exactly, whatever the backups: all gaps have some, of as many predictions as there are."""
    draw, traced = random.Random(seed), case(name, grain, True, FilterShape(4, True, 3))
    sampler, terms = _probed(scheduler, draw.randint(3, 7)), draw.randint(1, 4)
    made = random_subnet(draw, traced.traced.graph, sampler)
    computed = np.cumsum(made.gates.any(axis=1))
    gaps = [tuple(dict.fromkeys(gap.rows)) for gap in find_gaps(sampler.rows, made.gates)]
    ones = [np.ones((min(terms, int(computed[rows[0]])), 4, 4, 3, 3)) for rows in gaps]
    made = replace(
        made,
        reuse_filters=tuple(
            GapFilters(rows, one, one if halves else None)
            for rows, one in zip(gaps, ones, strict=True)
        ),
    )
    graph, each = _with_filters_of(traced.traced.graph, max(map(len, ones), default=1), halves)
    model = replace(cost_model(graph, made, sampler), gaps=GapCost(terms, each))
    assert model.kept(made.gates) == cost_of_plan(graph, made, sampler).kept
    dense = np.ones_like(made.gates)
    assert model.kept(dense) == cost_model(graph, made, sampler).kept(dense)


def _with_filters_of(graph: BlockGraph, terms: int, halves: bool) -> tuple[BlockGraph, float]:
    """As if it had been traced for that many predictions; and the cost of one."""
    reuse = graph.gap_function
    assert reuse is not None
    past = reuse.past[: 2 * terms] if halves else reuse.past[: 2 * terms : 2]
    each = reuse.node.macs / len(reuse.past)
    node = replace(
        reuse.node,
        inputs=(*(value.name for value in past), reuse.table.name),
        macs=int(each * len(past)),
    )
    fewer = replace(graph, gap_function=replace(reuse, node=node, past=past))
    return fewer, each * len(past) / terms


def test_filters_cost_macs_alone(problem: Problem) -> None:
    """They touch no parameters, and nobody has timed them."""
    posed = problem.with_filters(4, True, 3)
    assert posed.cost.gaps == GapCost(4, 2 * 4**2 * 3**2 * 16 * 16)
    touched = replace(problem, weigh=parameter_weights).with_filters(4, True, 3)
    assert touched.cost.gaps == GapCost(4, 0.0)


def test_splitting_blocks_can_only_cost_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kept` is an upper bound of what a plan with blocks in parts keeps."""
    monkeypatch.setattr(granularity, "CALL_MACS", 0)
    graph, sampler = case("three_levels", "block").traced.graph, _probed("ddim", 6)
    less = 0
    for seed in range(40):
        made = random_subnet(random.Random(seed), graph, sampler)
        split = choose_split_blocks(graph, made, sampler)
        in_parts = plan_cost(run_passes(unroll(graph, made, sampler, split), PASSES)).kept
        whole = cost_model(graph, made, sampler).kept(made.gates)
        assert whole >= in_parts
        less += whole > in_parts
    assert less


def test_row_0_alone_is_the_least() -> None:
    """conv_in is dead at later steps, and the head repeats its call."""
    model = cost_model(UNET, subnet("111", "111", "111", "111"), euler(4))
    assert model.fixed == 0.25
    assert model.kept(np.ones((4, 3), dtype=bool)) == 1.0


@pytest.mark.parametrize("grain", ["block", "layer"])
def test_parameters_touched(grain: str) -> None:
    graph, sampler = case("dit", grain).traced.graph, _probed("ddim", 5)
    made = random_subnet(random.Random(3), graph, sampler)
    model = cost_model(graph, made, sampler, parameter_weights(graph))
    plan = run_passes(unroll(graph, made, sampler), PASSES)
    parameters = {node.name: node.parameters for node in graph.nodes}
    touched = sum(parameters[call.callee] for call in plan.calls)
    dense = sum(parameters[callee.name] for callee in plan.callees) * 5
    once = sum(parameters[callee.name] for callee in plan.callees if "prompt" in callee.name)
    once -= parameters["glue.prompt_timestep"]
    assert model.kept(made.gates) == touched / (dense - 4 * once)


def _seconds(graph: BlockGraph, plan: Plan) -> dict[str, float]:
    """A machine on which a MAC takes a second: what all calls of each callee take."""
    lanes = {callee.name: 0 for callee in plan.callees}
    for call in plan.calls:
        lanes[call.callee] += call.width
    return {
        callee.name: float((callee.macs + callee.attention_macs) * lanes[callee.name])
        for callee in plan.callees
    }


@pytest.mark.parametrize(("name", "grain"), CASES)
def test_latencies_are_shared_out_by_macs(name: str, grain: str) -> None:
    """From any plan: dense, or with segments, batched calls and blocks in parts."""
    graph, sampler = case(name, grain).traced.graph, _probed("ddim", 6)
    expected = {
        node.name: float(node.macs + node.attention_macs)
        for node in graph.nodes
        if node.name != "glue.timestep"
    }
    split = {node.name for node in graph.blocks if node.parts}
    for seed in range(2):
        made = random_subnet(random.Random(seed), graph, sampler)
        for parts in (frozenset[str](), split):
            plan = run_passes(unroll(graph, made, sampler, parts), OPTIMISE[:-1])
            weights = latency_weights(graph, plan, _seconds(graph, plan))
            assert weights.pop("glue.timestep") == 0.0
            assert weights == pytest.approx(expected)


def test_members_without_macs_share_their_time_equally() -> None:
    """Softmax-like pieces: a callee whose members all count 0 MACs."""
    nodes = tuple(replace(node, macs=0, attention_macs=0) for node in UNET.nodes)
    graph = replace(UNET, nodes=nodes)
    plan = run_passes(unroll(graph, subnet("111", "111"), euler(2)))
    (callee,) = plan.callees
    weights = latency_weights(graph, plan, {callee.name: 10.0})
    assert weights == {"time": 0.0} | dict.fromkeys(callee.members, 1.0)


def test_a_node_without_a_time_is_named() -> None:
    plan = run_passes(unroll(UNET, subnet("111", "101"), euler(2)))
    times = _seconds(UNET, plan)
    with pytest.raises(DipgoError, match=r"seg0.*same model with the same blocks"):
        latency_weights(UNET, plan, {name: 1.0 for name in times if name != "seg0"})
    more = replace(UNET, nodes=(*UNET.nodes, replace(UNET.nodes[-2], name="up1")))
    with pytest.raises(DipgoError, match=r"up1.*same model with the same blocks"):
        latency_weights(more, plan, times)
    with pytest.raises(DipgoError, match="same model with the same blocks"):
        latency_weights(case("dit", "block").traced.graph, plan, times)


def test_parts_that_do_not_fit_are_refused() -> None:
    made, sampler, weights = subnet("111", "111"), euler(2), macs_weights(UNET)
    with pytest.raises(DipgoError, match="name every block once"):
        CostModel(UNET, sampler, made.blocks[:2], made.backup[:2], weights)
    with pytest.raises(DipgoError, match=r"down0.*use the backup `output`"):
        CostModel(UNET, sampler, made.blocks, ("delta", "output", "output"), weights)
    with pytest.raises(DipgoError, match="weight of conv_in"):
        CostModel(UNET, sampler, made.blocks, made.backup, {"head": 1.0})
    with pytest.raises(DipgoError, match="costs something"):
        CostModel(UNET, sampler, made.blocks, made.backup, dict.fromkeys(weights, 0.0))
    model = cost_model(UNET, made, sampler)
    for gates in (np.ones((3, 3), bool), np.ones((2, 3)), np.zeros((2, 3), bool)):
        with pytest.raises(DipgoError, match="row 0 all on"):
            model.kept(gates)


@pytest.fixture(scope="module")
def sd15() -> BlockGraph:
    return trace_architecture("sd15", UNetFamily()).graph


GAMMA = {
    "down_blocks.0": 0.097,
    "down_blocks.1": 0.092,
    "down_blocks.2": 0.093,
    "down_blocks.3": 0.011,
    "mid_block": 0.018,
    "up_blocks.0": 0.067,
    "up_blocks.1": 0.382,
    "up_blocks.2": 0.708,
    "up_blocks.3": 0.9997,
}
"""Of SD-1.5, worked out from the block costs that DiP-GO published."""


@pytest.mark.slow
def test_cascade_of_sd15(sd15: BlockGraph) -> None:
    shares = dict(zip((block.name for block in sd15.blocks), cascade_shares(sd15), strict=True))
    assert shares == pytest.approx(GAMMA, abs=0.002)
    dying = dying_with(sd15)
    assert dying["up_blocks.3"] == set(GAMMA)
    assert dying["up_blocks.0"] == {"up_blocks.0", "mid_block", "down_blocks.3"}
    assert dying["down_blocks.0"] == {"down_blocks.0"}


def test_the_published_subnet_of_sd15_keeps_what_was_published(sd15: BlockGraph) -> None:
    """DDIM-50 at 0.8: ten rows of all blocks, but for one of row 7; 0.1997 of the MACs."""
    sampler = _probed("ddim", 50)
    blocks = tuple(node.name for node in sd15.blocks)
    gates = np.zeros((50, len(blocks)), dtype=bool)
    gates[[0, 7, 13, 19, 20, 21, 26, 32, 39, 48]] = True
    gates[7, blocks.index("down_blocks.3")] = False
    words = ("output",) * len(blocks)
    model = CostModel(sd15, sampler, blocks, words, macs_weights(sd15))
    assert model.kept(gates) == pytest.approx(0.1997, abs=5e-4)


def test_in_a_chain_all_that_comes_before_dies() -> None:
    graph = case("dit", "block").traced.graph
    names = [block.name for block in graph.blocks]
    assert [len(dying) for dying in dying_with(graph).values()] == [1, 2, 3, 4]
    assert all(np.diff(cascade_shares(graph)) > 0)
    for word in ("delta", "identity"):
        assert dying_with(graph, [word] * 4) == {name: frozenset({name}) for name in names}


def test_with_delta_only_side_inputs_die() -> None:
    """mid stands in the way of nothing: up0 still reads down0, and delta still needs its input."""
    assert dying_with(UNET)["up0"] == {"down0", "mid", "up0"}
    assert dying_with(UNET, ["output", "delta", "delta"])["mid"] == {"mid"}
    graph = case("three_levels", "layer").traced.graph
    whole, delta = (
        dying_with(graph, [word if graph.carriers[one.name] else "output" for one in graph.blocks])
        for word in ("output", "delta")
    )
    assert all(delta[name] <= whole[name] for name in whole)
    assert any(delta[name] < whole[name] for name in whole)
