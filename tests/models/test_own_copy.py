"""A copy of a module computes with its own weights, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.models.own_copy import own_copy


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class _Through:
    """A processor, hook or function in an object."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.inner(hidden)
        return result


def _closure(block: Any) -> None:
    original = block.forward
    block.forward = lambda hidden: original(hidden)


def _wrapped(block: Any) -> None:
    """`wraps` gives it the name of torch's module."""
    original = block.forward

    @wraps(original)
    def forward(hidden: Tensor) -> Tensor:
        result: Tensor = original(hidden)
        return result

    block.forward = forward


def _of_a_weight(block: Any) -> None:
    weight = block.weight
    block.forward = lambda hidden: hidden @ weight


def _default(block: Any) -> None:
    def forward(hidden: Tensor, inner: Any = block.forward) -> Tensor:
        result: Tensor = inner(hidden)
        return result

    block.forward = forward


def _keyword(block: Any) -> None:
    def forward(hidden: Tensor, *, inner: Any = block.forward) -> Tensor:
        result: Tensor = inner(hidden)
        return result

    block.forward = forward


def _hook(block: Any) -> None:
    block.register_forward_hook(lambda module, inputs, output: block.weight.sum() + output)


def _global(block: Any) -> None:
    """As in a notebook, whose pipeline is a global variable."""
    names: dict[str, Any] = {"__name__": "__main__", "pipe": _Through(block), "Linear": nn.Linear}
    exec("def forward(hidden): return (lambda: Linear.forward(pipe.inner, hidden))()", names)
    block.forward = names["forward"]


def _within(block: Any) -> None:
    original = block.forward
    block.forward = _Through({"calls": [lambda hidden: original(hidden)]}["calls"][0])


def _method(block: Any) -> None:
    block.forward = MethodType(lambda self, hidden: 2 * nn.Linear.forward(self, hidden), block)


HELD: dict[str, Callable[[Any], Any]] = {
    "closure": _closure,
    "wrapped": _wrapped,
    "weight": _of_a_weight,
    "default": _default,
    "keyword": _keyword,
    "hook": _hook,
    "global": _global,
    "within": _within,
}
COPIED: dict[str, Callable[[Any], Any]] = {
    "method": _method,
    "object": lambda block: setattr(block, "forward", _Through(block.forward)),
    "partial": lambda block: setattr(block, "forward", partial(nn.Linear.forward, block)),
    "nothing held": lambda block: block.register_forward_hook(lambda *call: 2 * call[-1]),
    "its own closure": lambda block: block.register_forward_hook(_doubling()),
}


def _doubling() -> Callable[..., Tensor]:
    factor = torch.tensor(2.0)
    return lambda module, inputs, output: factor * output


@pytest.mark.parametrize("name", HELD)
def test_what_holds_the_original_is_refused(name: str) -> None:
    """At e6859a8 LoRAs and float32 weights did not reach what such code computes with."""
    model = _Model()
    HELD[name](model.blocks[1])
    with pytest.raises(DipgoError, match=r"unet, blocks\.1: found .* holds modules of the loaded"):
        own_copy(model, "unet")


@torch.no_grad()
@pytest.mark.parametrize("name", COPIED)
def test_a_copy_has_weights_of_its_own(name: str) -> None:
    model = _Model()
    COPIED[name](model.blocks[1])
    hidden = torch.randn(2, 3)
    copied, expected = own_copy(model, "unet"), model(hidden)
    assert torch.equal(copied(hidden), expected)
    for weight in model.parameters():
        weight.zero_()
    assert torch.equal(copied(hidden), expected)
    for weight in copied.parameters():
        weight.zero_()
    assert not copied(hidden).any()
