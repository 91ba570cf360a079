"""The SuperNet: values as the oracle has them, gradients as differences have them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map

from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import Dependence
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.gradient.parameters import gates_of
from dipgo.search.supernet.gating import OFF
from dipgo.search.supernet.row_gates import RowGates, row_gates
from dipgo.search.supernet.supernet import SuperNet
from tests.support.random_subnets import TERMS, _probed, filter_rows, random_subnet, weigh_rows
from tests.support.zoo import Case, FilterShape, case, with_filters

TOLERANCE = 1e-4
"""Relative L2, float32: sums in another order."""

SAMPLERS = ("ddim", "plms", "dpm++")
CASES = [
    *((name, "block", sampler) for name in ("one_level", "dit") for sampler in SAMPLERS),
    ("asymmetric", "layer", "plms"),
    ("dit", "layer", "ddim"),
    ("sdxl", "block", "dpm++"),
    ("sd3", "block", "plms"),
]
MIXED = ("delta", "output", "identity", "delta")


def _net(tiny: Case, subnet: SubNet, sampler: Sampler, checkpointing: bool = True) -> SuperNet:
    return SuperNet(
        tiny.traced,
        sampler,
        subnet.blocks,
        subnet.backup,
        checkpointing=checkpointing,
        halves=subnet.uses_halves,
    )


@cache
def _dense(name: str, grain: str, sampler: str, steps: int, words: tuple[str, ...] = ()) -> SubNet:
    """All gates on; every backup `output` unless said."""
    blocks = [block.name for block in case(name, grain).traced.graph.blocks]
    made = SubNet.dense(_probed(sampler, steps).timesteps, blocks, num_inference_steps=steps)
    return replace(made, backup=words) if words else made


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _table(subnet: SubNet) -> Tensor:
    return torch.tensor(subnet.gates, dtype=torch.float32)


def _check_against_oracle(tiny: Case, subnet: SubNet, sampler: Sampler) -> None:
    with torch.no_grad():
        found = _net(tiny, subnet, sampler)(_table(subnet), tiny.inputs, row_gates(subnet))
    plan = unroll(tiny.traced.graph, subnet, sampler)
    for one in (plan, run_passes(plan)):
        expected = interpret(one, tiny.traced, tiny.inputs)
        assert _relative_error(found, expected) < TOLERANCE


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize(("name", "grain", "sampler"), CASES)
def test_hard_gates_equal_the_oracle(name: str, grain: str, sampler: str, seed: int) -> None:
    """Every backup, before passes and after them."""
    draw, tiny = random.Random(seed), case(name, grain)
    probed = _probed(sampler, draw.randint(3, 5))
    _check_against_oracle(tiny, random_subnet(draw, tiny.traced.graph, probed), probed)


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["one_level", "dit"])
def test_reuse_equals_the_oracle(name: str, sampler: str, seed: int) -> None:
    """Rows that are wholly off weigh up to three of the latest predictions, and of their halves."""
    draw, tiny = random.Random(seed), case(name, "block")
    probed = _probed(sampler, draw.randint(4, 6))
    subnet = random_subnet(draw, tiny.traced.graph, probed)
    gates = subnet.gates.copy()
    gates[[row for row in range(1, len(gates)) if draw.random() < 0.4]] = False
    gates[-1] = False
    for halves in (False, True):
        weighed = weigh_rows(draw, replace(subnet, gates=gates), halves)
        assert any(weighed.reuse or ())
        _check_against_oracle(tiny, weighed, probed)


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["one_level", "dit"])
def test_filters_equal_the_oracle(name: str, sampler: str, seed: int) -> None:
    """Rows that are wholly off filter up to three of the latest predictions, and their halves."""
    draw = random.Random(seed)
    tiny = case(name, "block", True, FilterShape(TERMS, True, 3))
    probed = _probed(sampler, draw.randint(4, 6))
    subnet = random_subnet(draw, tiny.traced.graph, probed)
    gates = subnet.gates.copy()
    gates[[row for row in range(1, len(gates)) if draw.random() < 0.4]] = False
    gates[-1] = False
    for halves in (False, True):
        filtered = filter_rows(draw, replace(subnet, gates=gates), halves, 4, every=True)
        _check_against_oracle(with_filters(tiny, filtered), filtered, probed)


def test_weights_beside_filters_and_rows_with_neither_equal_the_oracle() -> None:
    """A row with neither has what its blocks' backups make of it, and is no prediction."""
    subnet = _dense("one_level", "block", "ddim", 6)
    tiny = case("one_level", "block", True, FilterShape(1, True, 3))
    gates = subnet.gates.copy()
    gates[[1, 3, 5]] = False
    graph = tiny.traced.graph
    words = tuple("delta" if graph.carriers[block.name] else "output" for block in graph.blocks)
    weights = ((), (1.5,), (), (), (), ())
    numbers = np.random.default_rng(0).normal(0, 0.2, (1, 4, 4, 3, 3)).astype(np.float32)
    both = replace(
        subnet,
        gates=gates,
        backup=words,
        reuse=weights,
        reuse_unconditional=weights,
        reuse_filters=(GapFilters((5,), numbers),),
    )
    _check_against_oracle(with_filters(tiny, both), both, _probed("ddim", 6))


def test_reuse_is_not_what_a_row_repeats_by_itself() -> None:
    tiny, sampler = case("one_level", "block"), _probed("ddim", 4)
    subnet = _dense("one_level", "block", "ddim", 4)
    gates = subnet.gates.copy()
    gates[2:] = False
    off = replace(subnet, gates=gates)
    weighed = replace(off, reuse=((), (), (1.5, -0.5), (2.0, -1.0)))
    repeated = replace(off, reuse=((), (), (1.0,), (1.0,)))
    net = _net(tiny, subnet, sampler)
    with torch.no_grad():
        plain, same, other = (
            net(_table(one), tiny.inputs, row_gates(one)) for one in (off, repeated, weighed)
        )
    assert _relative_error(same, plain) < TOLERANCE
    assert _relative_error(other, plain) > 10 * TOLERANCE


# Gradients, in float64.


def _wide(net: SuperNet, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns the SuperNet's weights and tables to float64, and returns such inputs."""
    net.functions = {name: _wide_module(one) for name, one in net.functions.items()}
    net.tables = [{name: _double(one) for name, one in table.items()} for table in net.tables]
    return {name: _double(one) for name, one in inputs.items()}


def _wide_module(module: nn.Module) -> nn.Module:
    """A copy, since its weights are shared, whose casts are to float64 too."""
    copy = deepcopy(module)
    assert isinstance(copy, fx.GraphModule)
    for node in copy.graph.nodes:
        node.args, node.kwargs = tree_map(_wide_type, (node.args, node.kwargs))
    copy.recompile()
    return copy.double()


def _wide_type(argument: object) -> object:
    return torch.float64 if argument is torch.float32 else argument


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


GRADIENTS = {
    "output": ("one_level", "block", "ddim", ()),
    "mixed": ("dit", "block", "plms", MIXED),
    "three orders": ("one_level", "block", "dpm++", ()),
}


def _wide_net(kind: str, checkpointing: bool = True) -> tuple[SuperNet, dict[str, Tensor]]:
    name, grain, sampler, words = GRADIENTS[kind]
    tiny = case(name, grain)
    subnet = _dense(name, grain, sampler, 4, words)
    net = _net(tiny, subnet, _probed(sampler, 4), checkpointing)
    return net, _wide(net, tiny.inputs)


def _random_gates(net: SuperNet, seed: int = 0) -> Tensor:
    """Relaxed, none of them so low that it is a choice."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(net.sampler.timesteps), len(net.blocks))
    return 0.3 + 0.6 * torch.rand(shape, generator=generator, dtype=torch.float64)


def _loss(latents: Tensor) -> Tensor:
    """A loss with a gradient everywhere."""
    return (latents * torch.linspace(-1, 1, latents.numel()).view_as(latents)).sum()


def _slopes(function: Callable[[Tensor], Tensor], at: Tensor, size: float = 1e-5) -> Tensor:
    """Central differences of a function of one tensor."""
    slopes = torch.zeros_like(at)
    with torch.no_grad():
        for index in range(at.numel()):
            shift = torch.zeros_like(at).view(-1)
            shift[index] = size
            ends = (function(at + sign * shift.view_as(at)) for sign in (1, -1))
            slopes.view(-1)[index] = (next(ends) - next(ends)) / (2 * size)
    return slopes


def _gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(leaf), leaf)
    return found


def _check_gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    found = _gradient(function, at)
    expected = _slopes(function, at)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7 * float(expected.abs().max()))
    return found


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient_of_gates_is_that_of_differences(kind: str) -> None:
    """None is zero but in row 0, which is computed whatever its gates say."""
    net, inputs = _wide_net(kind)
    found = _check_gradient(lambda gates: _loss(net(gates, inputs)), _random_gates(net))
    assert (found[0] == 0).all()
    assert (found[1:] != 0).all()


def test_gradient_of_reuse_weights_and_row_gates_is_that_of_differences() -> None:
    net, inputs = _wide_net("output")
    table = torch.ones(4, len(net.blocks), dtype=torch.float64)
    weights = torch.tensor([[0.0, 0], [0, 0], [0.7, 0.2], [1.4, -0.3]], dtype=torch.float64)
    rows = torch.tensor([1.0, 1.0, 0.4, 0.7], dtype=torch.float64)
    of_weights = _check_gradient(
        lambda one: _loss(net(table, inputs, RowGates(rows, one))), weights
    )
    assert (of_weights[2:] != 0).all()
    of_rows = _check_gradient(
        lambda one: _loss(net(table, inputs, RowGates(one, weights))),
        torch.tensor([1.0, 0.8, 0.4, 0.7], dtype=torch.float64),
    )
    assert (of_rows[1:] != 0).all()


def test_gradient_of_reuse_weights_of_rows_that_are_off() -> None:
    """As they are trained: gates are choices."""
    net, inputs = _wide_net("three orders")
    table = torch.ones(4, len(net.blocks), dtype=torch.float64)
    table[2:] = 0
    start = torch.tensor([[0.0, 0], [0, 0], [1.3, -0.3], [1.4, -0.4]], dtype=torch.float64)
    found = _check_gradient(
        lambda one: _loss(net(table, inputs, RowGates(table.amax(1), one))), start
    )
    assert (found[2:] != 0).all()
    assert (found[:2] == 0).all()


@pytest.mark.parametrize("kind", GRADIENTS)
def test_checkpointing_leaves_gradients_as_they_are(kind: str) -> None:
    found = []
    for checkpointing in (True, False):
        net, inputs = _wide_net(kind, checkpointing)
        found.append(_gradient(lambda g, n=net, i=inputs: _loss(n(g, i)), _random_gates(net)))
    assert torch.allclose(*found, rtol=1e-9)


def test_a_gate_that_is_all_but_closed_is_a_choice() -> None:
    net, inputs = _wide_net("output")
    gates = _random_gates(net)
    gates[2, 1] = OFF / 2
    shut = gates.clone()
    shut[2, 1] = 0
    with torch.no_grad():
        assert torch.equal(net(gates, inputs), net(shut, inputs))
    assert _gradient(lambda one: _loss(net(one, inputs)), gates)[2, 1] == 0


def _saved_nbytes(steps: int, checkpointing: bool) -> int:
    """Bytes that wait for the way back, each storage once."""
    tiny = case("one_level", "block")
    net = _net(tiny, _dense("one_level", "block", "ddim", steps), _probed("ddim", steps))
    net.checkpointing = checkpointing
    gates = torch.full((steps, len(net.blocks)), 0.5, requires_grad=True)
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        latents = net(gates, tiny.inputs)
    assert latents.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def test_checkpointing_keeps_states_and_caches_alone() -> None:
    """Of every further step no more is kept than its states, its predictions and its caches."""
    tiny = case("one_level", "block")
    net = _net(tiny, _dense("one_level", "block", "ddim", 4), _probed("ddim", 4))
    walk = net.begin(tiny.inputs)
    with torch.no_grad():
        net.advance(walk, None)
    carried = [one for cache in walk.caches.values() for one in cache]
    allowed = sum(one.nbytes for one in (*carried, *walk.inputs, *walk.outputs))
    per_step = (_saved_nbytes(8, True) - _saved_nbytes(4, True)) / 4
    assert per_step <= allowed
    assert (_saved_nbytes(8, False) - _saved_nbytes(4, False)) / 4 > 2 * allowed


def _calls(net: SuperNet, inputs: Mapping[str, Tensor], gates: Tensor) -> Counter[str]:
    """How often each node is computed."""
    counts: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        return lambda *ignored: counts.update([name])

    handles = [one.register_forward_hook(count(name)) for name, one in net.functions.items()]
    with torch.no_grad():
        net(gates, inputs)
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize("name", ["one_level", "sdxl", "dit"])
def test_every_node_is_computed_no_oftener_than_it_must(name: str) -> None:
    """Timestep-only values while the SuperNet is made, prompt-only ones once a trajectory."""
    tiny, sampler = case(name, "block"), _probed("plms", 4)
    net = _net(tiny, _dense(name, "block", "plms", 4), sampler)
    gates = torch.ones(len(sampler.timesteps), len(net.blocks))
    gates[2, 0] = 0
    counts = _calls(net, tiny.inputs, gates)
    evaluations = len(sampler.rows)
    expected: dict[Any, int] = {
        Dependence.TIMESTEP: 0,
        Dependence.PROMPT: 1,
    }
    for node in net.graph.nodes:
        times = expected.get(node.dependence, evaluations)
        assert counts[node.name] == times - (node.name == net.blocks[0]), node.name


# What of the logits the SuperNet sees.


def test_straight_through_is_a_choice_with_the_slope_of_the_sigmoid() -> None:
    logits = torch.linspace(-3, 3, 12, dtype=torch.float64).view(4, 3).requires_grad_()
    gates = gates_of(logits, "straight-through", 1.7)
    assert torch.allclose(gates[1:], (logits[1:] > 0).double())
    assert (gates[0] == 1).all()
    (slope,) = torch.autograd.grad(gates.sum(), logits)
    soft = torch.sigmoid(1.7 * logits.detach())
    expected = 1.7 * soft * (1 - soft)
    expected[0] = 0
    assert torch.allclose(slope, expected)


def test_relaxed_gates_are_probabilities() -> None:
    logits = torch.linspace(-3, 3, 12).view(4, 3)
    gates = gates_of(logits, "relaxed", 2.0)
    assert torch.equal(gates[1:], torch.sigmoid(2.0 * logits[1:]))
    assert (gates[0] == 1).all()


def test_gates_that_are_off_have_a_gradient_straight_through() -> None:
    """As published: a block is computed also where it is reused, so that it can come back."""
    tiny = case("one_level", "block")
    subnet = _dense("one_level", "block", "ddim", 3)
    net = SuperNet(tiny.traced, _probed("ddim", 3), subnet.blocks, subnet.backup, skip_closed=False)
    for row, column in np.ndindex(2, len(net.blocks)):
        logits = torch.ones(3, len(net.blocks))
        logits[row + 1, column] = -1
        logits.requires_grad_()
        latents = net(gates_of(logits, "straight-through", 1.0), tiny.inputs)
        (found,) = torch.autograd.grad(_loss(latents), logits)
        assert found[row + 1, column] != 0
