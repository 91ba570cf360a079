"""The pruner: its size, where it starts, and what the gradient reaches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dipgo.search.gradient.parameters import FREE_START, Encoder, Pruner, make_parameters
from dipgo.search.settings import Parameters

STEPS, BLOCKS = 4, 3
PRUNERS: tuple[Parameters, ...] = ("pruner", "pruner-identity", "pruner-shared")


def _make(kind: Parameters) -> nn.Module:
    torch.manual_seed(0)
    return make_parameters(kind, STEPS, BLOCKS)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _gradients(module: nn.Module) -> dict[str, Tensor]:
    """Of a random combination of the logits, by the parameter's name."""
    module.zero_grad()
    logits = module()
    generator = torch.Generator().manual_seed(0)
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def _step(module: nn.Module) -> None:
    """One step of the optimiser."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    _gradients(module)
    optimizer.step()


def test_it_has_as_many_parameters_as_the_published_one() -> None:
    assert _count(Pruner(50, 9)) == pytest.approx(37.85e6, abs=5e3)


def test_the_variants_lack_what_they_leave_out() -> None:
    whole, queries = _count(_make("pruner")), STEPS * BLOCKS * 512
    heads = _count(Pruner(1, BLOCKS, encoder=False)) - BLOCKS * 512
    assert whole - _count(_make("pruner-identity")) == _count(Encoder())
    assert _count(_make("pruner-shared")) == queries + _count(Encoder()) + heads
    assert whole == queries + _count(Encoder()) + STEPS * heads


@pytest.mark.parametrize("kind", PRUNERS)
def test_every_gate_starts_at_keep(kind: Parameters) -> None:
    assert torch.equal(_make(kind)(), torch.ones(STEPS, BLOCKS))


def test_free_logits_are_the_parameters() -> None:
    module = _make("free")
    assert torch.equal(module(), torch.full((STEPS, BLOCKS), FREE_START))
    assert _count(module) == STEPS * BLOCKS


@pytest.mark.parametrize("kind", PRUNERS)
def test_the_gradient_reaches_the_last_layer_at_once(kind: Parameters) -> None:
    """And nothing before it, as long as its weights are 0."""
    found = _gradients(_make(kind))
    reached = {name for name, gradient in found.items() if gradient.any()}
    assert reached == {"heads.last_weight", "heads.last_bias"}


@pytest.mark.parametrize("kind", PRUNERS)
def test_the_gradient_reaches_every_parameter_after_a_step(kind: Parameters) -> None:
    module = _make(kind)
    _step(module)
    found = _gradients(module)
    silent = {name for name, gradient in found.items() if not gradient.any()}
    # A bias of all keys shifts the scores of a query alike, which the softmax does not see.
    assert silent <= {"encoder.key.bias"}
    assert set(found) == {name for name, _ in module.named_parameters()}
    assert (found["queries"].abs().sum(-1) > 0).all()


def _logits_with_other_query(kind: Parameters, step: int, block: int) -> tuple[Tensor, Tensor]:
    """Before and after, once the last layer is not 0."""
    module = _make(kind)
    _step(module)
    with torch.no_grad():
        before = module()
        module.get_parameter("queries")[step, block] += torch.randn(512)
        return before, module()


@pytest.mark.parametrize("kind", ["pruner", "pruner-shared"])
def test_gates_of_a_step_see_one_another_and_no_others(kind: Parameters) -> None:
    before, after = _logits_with_other_query(kind, 2, 1)
    changed = (before - after).abs() > 1e-7
    assert changed[2].all()
    assert not changed[[0, 1, 3]].any()


def test_without_the_encoder_a_query_is_alone() -> None:
    before, after = _logits_with_other_query("pruner-identity", 2, 1)
    changed = (before - after).abs() > 1e-7
    assert changed.nonzero().tolist() == [[2, 1]]


def test_attention_is_as_published() -> None:
    """One head: softmax(q kᵀ / √128) v within a step, by hand."""
    torch.manual_seed(0)
    encoder, tokens = Encoder(), torch.randn(2, 3, 512)
    query, key = encoder.query(tokens), encoder.key(tokens)
    weights = torch.softmax(query @ key.transpose(1, 2) / 128**0.5, dim=-1)
    middle = encoder.attention_norm(tokens + weights @ encoder.value(tokens))
    expected = encoder.output_norm(middle + encoder.feed_forward(middle))
    assert torch.allclose(encoder(tokens), expected, atol=1e-5)


def test_a_seed_gives_the_same_start() -> None:
    one, other = _make("pruner").state_dict(), _make("pruner").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
