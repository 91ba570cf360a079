"""A gap rule is written in one place: a new row of each table works wherever SubNets do."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import GAP_FUNCTION
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.plan.parse import parse_plan
from dipgo.ir.sampler import Sampler, draw_name
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.gap_rule import GapRule, Gates, Latest, Operations, V
from dipgo.ir.subnet.gap_rules import GAP_RULES
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.subnet.truncate import cut_to
from dipgo.models.gap_functions import GAP_MODULES, GapShape
from dipgo.search.cost.count_calls import CallFlow
from dipgo.search.supernet.row_gates import row_gates
from dipgo.search.supernet.supernet import SuperNet
from tests.support.compare import relative_error
from tests.support.random_blocks import TOKENS
from tests.support.random_graphs import random_graph
from tests.support.random_subnets import random_sampler, random_subnet

TOLERANCE = 1e-5
"""Relative L2, float32."""


@dataclass(frozen=True)
class TokenGaps(GapRule):
    """Half the latest prediction, and half a sum in which each token has its own weights.

    `entries` has the weights f32[T, TOKENS] of each row.
    """

    key: ClassVar[str] = "reuse_tokens"
    keys: ClassVar[Mapping[str, Any]] = {"reuse_tokens": list[tuple[int, list[list[float]]]]}
    noun: ClassVar[str] = "weights of tokens"

    entries: Mapping[int, NDArray[np.float32]]

    @property
    def rows(self) -> Collection[int]:
        return self.entries.keys()

    @property
    def halves(self) -> bool:
        return False

    @property
    def terms(self) -> int:
        return max(map(len, self.entries.values()))

    def predict(self, row: int, latest: Latest[V], operations: Operations[V]) -> V:
        mixed = operations.apply(row, latest)
        return operations.combine(((0.5, mixed), (0.5, latest[0][0])))

    def numbers(self, terms: int, halves: bool) -> Mapping[int, NDArray[np.float32]]:
        missing = ((row, terms - len(weights)) for row, weights in self.entries.items())
        return {row: np.pad(self.entries[row], ((0, count), (0, 0))) for row, count in missing}

    def check(self, gates: Gates) -> None:
        for row in self.rows:
            if gates[row].any():
                raise DipgoError(self.where(row), found="on", expected="off", remedy="take it out")

    def cut(self, begin: int) -> TokenGaps | None:
        left = {row - begin: one for row, one in self.entries.items() if row >= begin}
        return TokenGaps(left) if left else None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> TokenGaps:
        return cls({row: np.array(one, np.float32) for row, one in values[cls.key]})

    def write(self) -> dict[str, Any]:
        return {self.key: [(row, one.tolist()) for row, one in self.entries.items()]}

    def describe(self) -> str | None:
        return None


class MixTokens(nn.Module):
    """Weights f32[K, TOKENS] of the tokens of K predictions f32[1, TOKENS, FEATURES]."""

    def forward(self, weights: Tensor, *past: Tensor) -> Tensor:
        return (torch.stack(past, dim=1) * weights[None, :, :, None]).sum(1)


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third rule: a row of the table of rules, and one of the table of functions."""
    monkeypatch.setitem(GAP_RULES, TokenGaps.key, TokenGaps)
    monkeypatch.setitem(GAP_MODULES, TokenGaps.key, MixTokens)


def _weigh_tokens(draw: random.Random, subnet: SubNet, terms: int) -> SubNet:
    """Some rows are off, most of them by the third rule, of up to `terms` predictions."""
    gates = subnet.gates.copy()
    gates[[row for row in range(1, len(gates)) if draw.random() < 0.4]] = False
    computed, generator = np.cumsum(gates.any(axis=1)), np.random.default_rng(draw.getrandbits(32))
    entries = {
        row: generator.uniform(-0.7, 0.7, (min(terms, int(computed[row])), TOKENS)).astype("f4")
        for row in np.flatnonzero(~gates.any(axis=1)).tolist()
        if draw.random() < 0.8
    }
    return replace(subnet, gates=gates, more_gaps=(TokenGaps(entries),) if entries else ())


@pytest.mark.slow
@pytest.mark.usefixtures("third")
@pytest.mark.parametrize("seed", range(12))
def test_every_path_agrees_on_a_third_rule(seed: int) -> None:
    """Plan, passes, oracle, SuperNet and cost model."""
    draw = random.Random(seed)
    example = random_graph(seed, GapShape(TokenGaps.key, 3, False, (3, TOKENS)))
    graph, sampler = example.traced.graph, random_sampler(draw)
    made = _weigh_tokens(draw, random_subnet(draw, graph, sampler), terms=3)
    numbers = {row: one for rule in made.gaps for row, one in rule.numbers(3, False).items()}
    tables = {TokenGaps.key: {row: torch.from_numpy(one) for row, one in numbers.items()}}
    traced = replace(example.traced, given_tables=tables)
    inputs = example.inputs | _draws(sampler, example.inputs["latents"])
    net = SuperNet(traced, sampler, made.blocks, made.backup)
    with torch.no_grad():
        expected = net(torch.tensor(made.gates, dtype=torch.float32), inputs, row_gates(made))
    plan = unroll(graph, made, sampler)
    optimised = run_passes(plan)
    for one in (plan, optimised):
        assert parse_plan(str(one)) == one
        assert relative_error(interpret(one, traced, inputs), expected) < TOLERANCE
    calls = CallFlow(graph, sampler, made.blocks, made.backup).calls(made.gates, made.gaps)
    counts = calls.executed.sum(axis=0)
    macs = sum(int(count) * node.macs for count, node in zip(counts, graph.nodes, strict=True))
    assert macs == plan_cost(optimised).macs
    of_rule = {one.name for one in optimised.callees if GAP_FUNCTION in (one.name, *one.members)}
    lanes = sum(call.width for call in optimised.calls if call.callee in of_rule)
    assert calls.of_gaps == lanes * max((rule.terms for rule in made.gaps), default=0)


def _draws(sampler: Sampler, latents: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        draw_name(one): torch.randn(latents.shape, generator=generator) for one in sampler.draws
    }


def _subnet(**changes: Any) -> SubNet:
    made = SubNet.dense((4, 3, 2, 1), ("a", "b"), num_inference_steps=4)
    gates = made.gates.copy()
    gates[[1, 3]] = False
    weights = np.full((1, TOKENS), 0.5, np.float32)
    return replace(made, gates=gates, more_gaps=(TokenGaps({3: weights}),), **changes)


@pytest.mark.usefixtures("third")
def test_a_third_rule_is_cut_with_its_rows() -> None:
    made = _subnet()
    (rule,) = cut_to(made, (2, 1)).gaps
    assert list(rule.rows) == [1]
    assert made.without_reuse().gaps == ()
    assert made != made.without_reuse()


@pytest.mark.usefixtures("third")
def test_a_third_rule_is_a_key_of_files(tmp_path: Path) -> None:
    made = _subnet(reuse=((), (0.5,), (), ()))
    made.save(tmp_path / "subnet.json")
    assert SubNet.load(tmp_path / "subnet.json") == made
    assert (
        '"gates": [\n    "11",\n    "00",\n    "11",\n    "00"\n  ],\n  "reuse": ['
        in (tmp_path / "subnet.json").read_text()
    )


def test_a_file_with_a_key_of_no_rule_is_refused(tmp_path: Path) -> None:
    _subnet().save(tmp_path / "plain.json")
    text = (tmp_path / "plain.json").read_text()
    assert "reuse_tokens" not in text
    (tmp_path / "subnet.json").write_text(text.replace("{\n", '{\n  "reuse_tokens": [],\n', 1))
    with pytest.raises(DipgoError, match="reuse_tokens"):
        SubNet.load(tmp_path / "subnet.json")


@pytest.mark.usefixtures("third")
def test_two_rules_for_a_row_and_two_functions_are_refused() -> None:
    with pytest.raises(DipgoError, match=r"^reuse_tokens row 3: found weights of tokens beside"):
        _subnet(reuse=((), (), (), (0.5,)))
    filters = (GapFilters((1,), np.ones((1, 4, 4, 3, 3))),)
    with pytest.raises(DipgoError, match=r"^reuse_tokens: found reuse_tokens beside reuse_filters"):
        _subnet(reuse_filters=filters)
