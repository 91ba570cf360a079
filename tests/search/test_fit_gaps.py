"""Filters of reuse: every path agrees, what they cost, what is refused, and how they are fitted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from dipgo.common.errors import DipgoError
from dipgo.compiler.compile import Compiled, compile_plan
from dipgo.compiler.oracle import interpret
from dipgo.compiler.request import Schedule
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.unroll import unroll
from dipgo.engines import load
from dipgo.export import export
from dipgo.inspect import main as inspect
from dipgo.ir.graph import GAP_FUNCTION
from dipgo.ir.plan.nodes import Combine
from dipgo.ir.plan.parse import parse_plan
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import TensorType, Value
from dipgo.models.family import Geometry
from dipgo.models.gap_functions import GapFilter, GapShape
from dipgo.models.model import Source
from dipgo.search.cost.model import latency_weights
from dipgo.search.fit_gaps import as_filters, as_table
from dipgo.search.losses import DISTANCES
from dipgo.search.problem import Problem
from dipgo.search.refine.hard_trajectories import Trajectories
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet.row_gates import row_gates
from tests.support.compare import relative_error
from tests.support.eager import run_eagerly
from tests.support.random_subnets import TERMS, subnet_with_filters
from tests.support.rare import rare_unless
from tests.support.schedulers import ddim_for
from tests.support.tiny_search import rows_on, tiny_examples, tiny_net
from tests.support.zoo import (
    EVERY_WAY,
    FILTERS,
    GUIDANCE_CASES,
    NO_PICTURES,
    ZOO,
    Case,
    FilterShape,
    case,
    is_common,
)

TOLERANCE = 1e-3
"""Relative L2, float32 kernels of another library, after all steps."""
HALF_TOLERANCE = 5e-3
STEPS = 6


def _source(name: str, chosen: Case) -> Source:
    scheduler = ddim_for(name)
    return Source("zoo", chosen.denoiser, ZOO[name].family, scheduler, 8, tokens=7)


def _compiled(
    name: str, chosen: Case, subnet: SubNet, guidance: bool, precision: Precision = FP32
) -> Compiled:
    schedule = Schedule(subnet, STEPS, None, ())
    geometry = Geometry(guidance=guidance, tokens=7)
    return compile_plan(_source(name, chosen), schedule, geometry, precision=precision)


# Every path agrees.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "guidance"),
    rare_unless(
        lambda name, guidance: (
            is_common(name, "block", guidance)
            and name in (*EVERY_WAY, "sdxl", "sd3", "controlnet", "unconditional")
        ),
        [
            (name, guidance)
            for name, grain, guidance in GUIDANCE_CASES
            if grain == "block" and name not in NO_PICTURES
        ],
    ),
)
def test_engines_and_the_oracle_equal_module_hooks(
    name: str, guidance: bool, tmp_path: Path
) -> None:
    chosen = case(name, "block", guidance)
    subnet = subnet_with_filters(chosen.traced.graph, len(name), halves=guidance)
    expected = run_eagerly(chosen, DDIMScheduler(clip_sample=False), subnet)
    compiled = _compiled(name, chosen, subnet, guidance)
    found = interpret(compiled.plan, compiled.traced, chosen.inputs)
    assert relative_error(found, expected) < 1e-5
    export(_source(name, chosen), subnet, tmp_path / "out", guidance=guidance)
    given = {key: tensor.numpy() for key, tensor in chosen.inputs.items()}
    ran = load(tmp_path / "out").run(given)["latents"]
    error = relative_error(torch.from_numpy(ran), expected)
    print(f"{name}: relative L2 {error:.1e}")
    assert error < TOLERANCE
    without = run_eagerly(
        chosen, DDIMScheduler(clip_sample=False), replace(subnet, reuse_filters=None)
    )
    assert relative_error(without, expected) > 10 * TOLERANCE


def test_fp16_engines_equal_the_oracle(tmp_path: Path) -> None:
    chosen = case("asymmetric", "block")
    subnet = subnet_with_filters(chosen.traced.graph, 4, halves=True)
    out = export(_source("asymmetric", chosen), subnet, tmp_path / "out", precision="fp16")
    found = load(out).run({key: tensor.numpy() for key, tensor in chosen.inputs.items()})
    compiled = _compiled("asymmetric", chosen, subnet, True, Precision("fp16"))
    expected = interpret(compiled.plan, compiled.traced, chosen.inputs)
    assert relative_error(torch.from_numpy(found["latents"]), expected) < HALF_TOLERANCE


@pytest.mark.slow
def test_an_export_for_several_sizes_filters_in_each(tmp_path: Path) -> None:
    """Filters are of no size: those that apply to 8 x 8 latents apply to 16 x 8."""
    chosen = case("asymmetric", "block")
    subnet = subnet_with_filters(chosen.traced.graph, 5, halves=True)
    source = _source("asymmetric", chosen)
    both, own = tmp_path / "both", tmp_path / "own"
    export(source, subnet, both, height=64, width=64, also_sizes=[(128, 64)])
    export(source, subnet, own, height=128, width=64)
    noise = torch.randn(1, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    given = {**{key: one.numpy() for key, one in chosen.inputs.items()}, "latents": noise.numpy()}
    found = load(both, size="128x64").run(given)["latents"]
    expected = load(own).run(given)["latents"]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


# The plan.


def test_a_gap_is_one_call_and_one_update() -> None:
    chosen = case("asymmetric", "block")
    subnet = subnet_with_filters(chosen.traced.graph, 0, halves=True)
    plan = _compiled("asymmetric", chosen, subnet, True).plan
    (segment,) = (one for one in plan.callees if GAP_FUNCTION in (one.members or (one.name,)))
    assert segment.members in ((), (GAP_FUNCTION,))
    calls = [call for call in plan.calls if call.callee == segment.name]
    assert [call.step for call in calls] == [1, 4]
    (table,) = (one for one in plan.tables if one.name == FILTERS)
    assert table.rows == (1, 4)
    # C x 2K·C x 3 x 3 over 8 x 8 latent pixels, two predictions and their halves
    assert segment.macs == 4 * (4 * 4) * 9 * 64
    steps = Counter(one.step for one in plan.statements if isinstance(one, Combine))
    assert max(steps.values()) == 1
    assert steps.keys() <= {1, 3, 4, STEPS}
    assert parse_plan(str(plan)) == plan


def test_gaps_that_need_no_newer_state_are_lanes_of_one_call(tmp_path: Path) -> None:
    """Two entries for one run of rows: the same past, each with filters of its own."""
    chosen = case("one_level", "block")
    whole = subnet_with_filters(chosen.traced.graph, 2, halves=True)
    first, second = whole.reuse_filters or ()
    gates = whole.gates.copy()
    gates[3] = False
    filters = (
        first,
        GapFilters((3, 4, 5), second.predictions[:1], -second.predictions[:1]),
    )
    subnet = replace(whole, gates=gates, reuse_filters=filters)
    plan = _compiled("one_level", chosen, subnet, True).plan
    (call,) = (one for one in plan.calls if FILTERS in str(one))
    assert call.width == 2
    export(_source("one_level", chosen), subnet, tmp_path / "out")
    given = {key: tensor.numpy() for key, tensor in chosen.inputs.items()}
    found = torch.from_numpy(load(tmp_path / "out").run(given)["latents"])
    expected = run_eagerly(chosen, DDIMScheduler(clip_sample=False), subnet)
    assert relative_error(found, expected) < TOLERANCE


def test_fewer_predictions_than_filters_are_the_oldest_without_weight() -> None:
    chosen = case("one_level", "block")
    subnet = subnet_with_filters(chosen.traced.graph, 0, halves=True)
    (rule,) = subnet.gaps
    table = GapShape.of(rule).numbers(rule)
    assert {row: tuple(one.shape) for row, one in table.items()} == {
        1: (4, 16, 3, 3),
        4: (4, 16, 3, 3),
    }
    assert not table[1][:, 8:].any()
    assert table[4][:, 8:].any()


def test_a_subnet_without_filters_has_the_plan_it_had() -> None:
    """Nor does a graph that was traced for filters change it."""
    for guidance in (False, True):
        plain = case("asymmetric", "layer", guidance)
        traced = case("asymmetric", "layer", guidance, FilterShape(TERMS, guidance, 3))
        subnet = replace(
            subnet_with_filters(plain.traced.graph, 0, halves=False), reuse_filters=None
        )
        sampler = probe(DDIMScheduler(clip_sample=False), STEPS)
        plans = [unroll(one.traced.graph, subnet, sampler) for one in (plain, traced)]
        assert str(plans[0]) == str(plans[1])
        assert FILTERS not in str(plans[0])


def test_a_filter_is_a_sum_over_neighbours() -> None:
    """By hand, pixel by pixel; beyond the edge predictions are 0."""
    generator = torch.Generator().manual_seed(0)
    past = [torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2)]
    filters = torch.randn(3, 6, 3, 3, generator=generator)
    found = GapFilter()(filters, *past)
    joined = torch.cat(past, 1)
    for y, x in ((0, 0), (2, 3), (3, 4)):
        expected = torch.zeros(2, 3)
        for down in range(max(0, y - 1), min(4, y + 2)):
            for right in range(max(0, x - 1), min(5, x + 2)):
                expected += joined[:, :, down, right] @ filters[:, :, down - y + 1, right - x + 1].T
        assert torch.allclose(found[:, :, y, x], expected, atol=1e-5)


# What it costs.


def test_an_export_with_filters_tells_latencies(tmp_path: Path) -> None:
    """They have a segment of their own, which is no part of an evaluation."""
    chosen = case("asymmetric", "block")
    subnet = subnet_with_filters(chosen.traced.graph, 0, halves=True)
    compiled = _compiled("asymmetric", chosen, subnet, True)
    times = {callee.name: 1.0 for callee in compiled.plan.callees}
    weights = latency_weights(chosen.traced.graph, compiled.plan, times)
    assert weights.keys() == {node.name for node in chosen.traced.graph.nodes}


# How they are fitted and trained.


def test_filters_are_nearer_than_weights(problem: Problem) -> None:
    """On the examples that they are fitted to; what can be told apart by pixels is more."""
    net = tiny_net(problem, halves=True)
    examples = [tiny_examples(problem, net)[index] for index in range(2)]
    gates = rows_on(problem, 0, 2)
    distance = DISTANCES["l2"]
    scalar, one, three = (
        Trajectories(net, examples, 4, distance, size).run(gates).error for size in (0, 1, 3)
    )
    assert three < one < scalar


@pytest.mark.parametrize("name", ["problem", "repeating"])
def test_a_run_ends_where_the_supernet_and_the_plan_do(
    name: str, request: pytest.FixtureRequest
) -> None:
    """With a row that a sampler repeats, too."""
    posed: Problem = request.getfixturevalue(name)
    net = tiny_net(posed, halves=True)
    examples = [tiny_examples(posed, net)[index] for index in range(2)]
    gates = rows_on(posed, 0, 2)
    gates[3, -1] = True
    outcome = Trajectories(net, examples, 4, DISTANCES["l2"], 3).run(gates)
    gaps = [fit.gap for fit in outcome.fits]
    filters = as_filters(as_table(outcome.fits, len(gates), 4), gaps, gates, kinds=2)
    subnet = posed.subnet(gates, {}, reuse_filters=filters)
    table = torch.tensor(gates, dtype=torch.float32)
    with torch.no_grad():
        ends = [net(table, one.inputs, row_gates(subnet)) for one in examples]
    errors = [
        float(DISTANCES["l2"](end, one.dense)) for end, one in zip(ends, examples, strict=True)
    ]
    assert outcome.distance == pytest.approx(np.mean(errors), rel=1e-5)
    schedule = Schedule(subnet, subnet.num_inference_steps, None, ())
    source = replace(posed.source, scheduler=posed.scheduler)
    compiled = compile_plan(source, schedule, posed.geometry)
    found = interpret(compiled.plan, compiled.traced, examples[0].inputs)
    assert relative_error(found, ends[0]) < 1e-4


# What is refused.


def test_a_graph_that_was_not_traced_for_filters_is_refused() -> None:
    chosen = case("one_level", "block")
    subnet = subnet_with_filters(chosen.traced.graph, 0, halves=True)
    sampler = probe(DDIMScheduler(clip_sample=False), STEPS)
    with pytest.raises(DipgoError, match=r"^SubNet, reuse_filters: found filters; expected none"):
        unroll(chosen.traced.graph, subnet, sampler)


def test_an_export_takes_weights_beside_filters() -> None:
    """Of rows that are not the same."""
    chosen = case("one_level", "block")
    whole = subnet_with_filters(chosen.traced.graph, 0, halves=False)
    filters = (whole.reuse_filters or ())[1:]
    both = replace(whole, reuse=((), (0.9,), (0.9,), (), (), ()), reuse_filters=filters)
    compiled = _compiled("one_level", chosen, both, True)
    found = interpret(compiled.plan, compiled.traced, chosen.inputs)
    expected = run_eagerly(chosen, DDIMScheduler(clip_sample=False), both)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("size", [-1, 2, 4])
def test_filters_without_a_middle_are_refused(size: int) -> None:
    with pytest.raises(DipgoError, match=r"^reuse_filter: found -?\d; expected "):
        SearchSettings(reuse_filter=size)


def test_filters_of_latents_that_are_no_pictures_are_refused(problem: Problem) -> None:
    graph = problem.traced.graph
    flat = TensorType("f32", (1, 256, 4))
    first = replace(graph.inputs[0], value=Value(graph.inputs[0].value.name, flat))
    other = replace(graph, inputs=(first, *graph.inputs[1:]))
    posed = replace(problem, traced=replace(problem.traced, graph=other))
    message = r"^reuse_filter: found 3 for latents f32\[1,256,4\]; expected .+; use reuse_filter 0$"
    with pytest.raises(DipgoError, match=message):
        posed.with_filters(4, True, 3)


def test_inspect_tells_of_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = case("one_level", "block")
    subnet_with_filters(chosen.traced.graph, 0, halves=True).save(tmp_path / "subnet.json")
    inspect([str(tmp_path / "subnet.json")])
    assert "rows made of earlier predictions by 3 × 3 filters 4, halves apart" in (
        capsys.readouterr().out
    )
