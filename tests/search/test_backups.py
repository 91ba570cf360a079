"""A backup is written in one place: a new row of the table works wherever SubNets do."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.unroll import unroll
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.plan.parse import parse_plan
from dipgo.ir.sampler import Sampler, draw_name
from dipgo.ir.subnet.backups import BACKUPS, CombineTerms, Delta, Output, V, Values
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.__main__ import _parser
from dipgo.search.cost.cascade import dying_with
from dipgo.search.cost.model import CostModel, macs_weights
from dipgo.search.supernet.supernet import SuperNet
from tests.support.compare import relative_error
from tests.support.handmade import UNET
from tests.support.random_graphs import RandomGraph, random_graph
from tests.support.random_subnets import random_sampler, random_subnet

TOLERANCE = 1e-5
"""Relative L2, float32."""


class HalfDelta(Delta):
    """The input, plus half of what the block last added."""

    word = "half-delta"

    def reuse(self, kept: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        return (combine(((1.0, entered), (0.5, kept[0]))),)


class Centred(Output):
    """What the block last yielded, reused by way of two values kept and two sums."""

    word = "centred"

    def keep(self, results: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        mean = combine(((0.5, results[0]), (0.5, entered)))
        return mean, combine(((1.0, results[0]), (-1.0, mean)))

    def reuse(self, kept: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        half = combine(((0.5, kept[0]), (0.5, kept[1])))
        return (combine(((1.0, half), (0.5, kept[0]), (0.5, kept[1]))),)


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more backups."""
    for backup in (HalfDelta(), Centred()):
        monkeypatch.setitem(BACKUPS, backup.word, backup)


def _numbers(terms: tuple[tuple[float, float], ...]) -> float:
    return sum(coefficient * value for coefficient, value in terms)


def _yielded(word: str, computed: float, entered: float, today: float) -> float:
    """What a block that computed once yields when it is off at another input."""
    backup = BACKUPS[word]
    (result,) = backup.reuse(backup.keep((computed,), entered, _numbers), today, _numbers)
    return result


@pytest.mark.usefixtures("more")
def test_each_backup_yields_what_its_word_says() -> None:
    expected = {"output": 7, "delta": 14, "identity": 10, "half-delta": 12, "centred": 7}
    assert {word: _yielded(word, 7.0, 3.0, 10.0) for word in BACKUPS} == expected
    reading = {"delta", "identity", "half-delta", "centred"}
    assert {word for word, backup in BACKUPS.items() if backup.reads_input} == reading
    assert [word for word, backup in BACKUPS.items() if backup.repeats] == ["output"]


@pytest.mark.slow
@pytest.mark.usefixtures("more")
@pytest.mark.parametrize("seed", range(12))
def test_every_path_agrees_on_new_backups(seed: int) -> None:
    """Plan, passes, oracle, SuperNet and cost model; mixed with others, and alone."""
    draw, example = random.Random(seed), random_graph(seed)
    sampler = random_sampler(draw)
    made = random_subnet(draw, example.traced.graph, sampler)
    new = (HalfDelta.word, Centred.word)[seed % 2]
    for backup in (made.backup, _everywhere(example, new)):
        _check(example, sampler, replace(made, backup=backup))


def _everywhere(example: RandomGraph, word: str) -> tuple[str, ...]:
    graph = example.traced.graph
    return tuple(word if graph.carriers[block.name] else "output" for block in graph.blocks)


def _check(example: RandomGraph, sampler: Sampler, made: SubNet) -> None:
    traced, graph = example.traced, example.traced.graph
    inputs = example.inputs | _draws(sampler, example.inputs)
    net = SuperNet(traced, sampler, made.blocks, made.backup)
    with torch.no_grad():
        expected = net(torch.tensor(made.gates, dtype=torch.float32), inputs)
    plan = unroll(graph, made, sampler)
    optimised = run_passes(plan)
    for one in (plan, optimised):
        assert parse_plan(str(one)) == one
        assert relative_error(interpret(one, traced, inputs), expected) < TOLERANCE
    model = CostModel(graph, sampler, made.blocks, made.backup, macs_weights(graph))
    calls = model.executed(made.gates).sum(axis=0)
    macs = sum(int(count) * node.macs for count, node in zip(calls, graph.nodes, strict=True))
    assert macs == plan_cost(optimised).macs


def _draws(sampler: Sampler, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = inputs["latents"].shape
    return {draw_name(one): torch.randn(shape, generator=generator) for one in sampler.draws}


@pytest.mark.usefixtures("more")
def test_new_backups_are_words_of_files_and_commands(tmp_path: Path) -> None:
    made = SubNet.dense((2, 1), ("a", "b"), num_inference_steps=2, backup="half-delta")
    made.save(tmp_path / "subnet.json")
    assert SubNet.load(tmp_path / "subnet.json") == made
    command = "--model M --steps 2 --ratio 0.5 --out OUT --backup half-delta"
    assert _parser().parse_args(command.split()).backup == "half-delta"


@pytest.mark.usefixtures("more")
def test_what_reads_its_input_keeps_its_input_alive() -> None:
    assert dying_with(UNET, ["output", "half-delta", "output"])["mid"] == {"mid"}
