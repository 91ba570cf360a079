"""Hooks, processors and functions in place of `forward`: traced, or refused if they keep state."""

from __future__ import annotations

import copy
import itertools
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.graph import Dependence
from tests.support.rare import rare_unless

ROLES = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP}

Scale = Callable[[], float]
"""A factor, which changes from call to call if something is kept."""

GLOBAL = {"calls": 0}


class _Slotted:
    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class _Counts:
    calls = 0

    def __init__(self) -> None:
        self.mine = 0

    def count(self) -> float:
        self.mine += 1
        return self.mine


def _pure() -> tuple[Scale, Any]:
    return lambda: 0.5, None


def _variable() -> tuple[Scale, Any]:
    calls = 0

    def scale() -> float:
        nonlocal calls
        calls += 1
        return calls

    return scale, scale.__closure__


def _within(holder: Any, change: Callable[[Any], Any]) -> tuple[Scale, Any]:
    return lambda: float(change(holder) or 2.0), holder


def _class_attribute() -> tuple[Scale, Any]:
    class Own:
        calls = 0

    def scale() -> float:
        Own.calls += 1
        return Own.calls

    return scale, SimpleNamespace(look=lambda: Own.calls)


def _default() -> tuple[Scale, Any]:
    def scale(seen: list[int] = []) -> float:  # noqa: B006 -- the mistake that people make
        seen.append(1)
        return len(seen)

    return scale, scale.__defaults__


def _global() -> tuple[Scale, Any]:
    def scale() -> float:
        GLOBAL["calls"] += 1
        return GLOBAL["calls"]

    return scale, GLOBAL


def _partial() -> tuple[Scale, Any]:
    seen: list[int] = []
    return partial(lambda kept: float(kept.append(1) or len(kept)), seen), seen


def _method() -> tuple[Scale, Any]:
    counts = _Counts()
    return counts.count, vars(counts)


def _iterator() -> tuple[Scale, Any]:
    numbers = itertools.count(1)
    return lambda: float(next(numbers)), None


KEEPERS: dict[str, Callable[[], tuple[Scale, Any]]] = {
    "variable": _variable,
    "list": lambda: _within([], lambda kept: kept.append(1)),
    "dict": lambda: _within({}, lambda kept: kept.update(calls=len(kept) + 1)),
    "dict in a list": lambda: _within([{}], lambda kept: kept[0].update({len(kept[0]): 1})),
    "set": lambda: _within(set(), lambda kept: kept.add(len(kept))),
    "deque": lambda: _within(deque([1]), lambda kept: kept.append(2)),
    "namespace": lambda: _within(SimpleNamespace(n=0), lambda kept: setattr(kept, "n", kept.n + 1)),
    "slots": lambda: _within(_Slotted(), lambda kept: setattr(kept, "calls", kept.calls + 1)),
    "array": lambda: _within(np.zeros(2), lambda kept: kept.__iadd__(1)[0]),
    "class": _class_attribute,
    "default": _default,
    "global": _global,
    "partial": _partial,
    "method": _method,
    "iterator": _iterator,
    "random": lambda: (random.random, None),
    "numpy.random": lambda: (np.random.rand, None),
}


class Layer(nn.Module):
    """A layer with a processor, as diffusers' attention has one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.processor: Any = lambda layer, hidden: layer.linear(hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.processor(self, hidden)


class Drawn(nn.Module):
    """A few layers; one is patched."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, latents: Tensor, timestep: Tensor) -> Tensor:
        hidden = latents * timestep
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class Guided(nn.Module):
    """Puts the denoiser at the path that tracing expects."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, latents: Tensor, timestep: Tensor) -> Tensor:
        return self.denoiser(latents, timestep)


class _Processor:
    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    def __call__(self, layer: Layer, hidden: Tensor) -> Tensor:
        return layer.linear(hidden) * self.scale()


def _processor(layer: Layer, scale: Scale) -> None:
    layer.processor = _Processor(scale)


def _hook(layer: Layer, scale: Scale) -> None:
    layer.register_forward_hook(lambda module, inputs, output: output * scale())


def _pre_hook(layer: Layer, scale: Scale) -> None:
    layer.linear.register_forward_pre_hook(lambda module, inputs: inputs[0] * scale())


def _forward(layer: Layer, scale: Scale) -> None:
    original = layer.forward
    layer.forward = lambda hidden: original(hidden) * scale()  # type: ignore[method-assign]


PLACES = {"processor": _processor, "hook": _hook, "pre-hook": _pre_hook, "forward": _forward}


def _example(seed: int) -> dict[str, Tensor]:
    latents = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))
    return {"latents": latents, "timestep": torch.tensor(1.5 + seed)}


def _trace(denoiser: nn.Module) -> Traced:
    module = Guided(denoiser).eval()
    return trace(module, _example(0), ROLES, ("layers.1",), model_class="", config_sha256="")


def _call(traced: Traced, example: dict[str, Tensor]) -> Tensor:
    graph = traced.graph
    names = [node.name for node in graph.nodes]
    (result,) = traced.module(names, list(example), [graph.output])(*example.values())
    return result


@torch.no_grad()
@pytest.mark.parametrize("place", PLACES)
def test_what_keeps_nothing_is_taken_up(place: str) -> None:
    denoiser = Drawn()
    plain = denoiser(**_example(1))
    scale, _ = _pure()
    PLACES[place](denoiser.layers[1], scale)
    expected = denoiser(**_example(1))
    assert not torch.allclose(expected, plain)
    assert torch.allclose(_call(_trace(denoiser), _example(1)), expected, rtol=1e-5, atol=1e-5)


CASES = [(place, keeper) for place in PLACES for keeper in KEEPERS]


def _is_common(place: str, keeper: str) -> bool:
    """Each keeper once, in turn in each place."""
    return list(KEEPERS).index(keeper) % len(PLACES) == list(PLACES).index(place)


@pytest.mark.parametrize(
    ("place", "keeper"),
    rare_unless(_is_common, CASES),
)
def test_what_keeps_something_is_refused(place: str, keeper: str) -> None:
    """Failed at 21ce821 for all 68 cases: the trace held what the first call had computed."""
    denoiser = Drawn()
    scale, kept = KEEPERS[keeper]()
    PLACES[place](denoiser.layers[1], scale)
    before = _look(kept)
    with pytest.raises(DipgoError, match="every call computes the same"):
        _trace(denoiser)
    assert _look(kept) == before


def _look(kept: Any) -> Any:
    if isinstance(kept, tuple) and kept and hasattr(kept[0], "cell_contents"):
        return [cell.cell_contents for cell in kept]
    if isinstance(kept, _Slotted):
        return kept.calls
    if isinstance(kept, np.ndarray):
        return kept.tolist()
    if hasattr(kept, "look"):
        return kept.look()
    return copy.deepcopy(kept)


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_traced_is_named(place: str) -> None:
    """Failed at 21ce821: torch's error came through with a traceback."""
    denoiser = Drawn()
    weight = denoiser.layers[0].linear.weight
    PLACES[place](denoiser.layers[1], lambda: 2.0 if weight.sum() > 0 else 0.5)
    with pytest.raises(DipgoError, match=r"layers\.1.*found code that cannot be traced"):
        _trace(denoiser)


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "randn": lambda hidden: hidden + torch.randn_like(hidden),
    "rand": lambda hidden: hidden + torch.rand(hidden.shape),
    "bernoulli": lambda hidden: hidden * torch.bernoulli(torch.full_like(hidden, 0.5)),
    "dropout": lambda hidden: nn.functional.dropout(hidden, 0.5),
    "normal": lambda hidden: hidden + torch.empty_like(hidden).normal_(),
    "permuted": lambda hidden: hidden[torch.randperm(2)],
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_are_refused(name: str) -> None:
    """Failed at 21ce821: they were exported, to be drawn by the engine or to fail in it."""
    denoiser = Drawn()
    denoiser.layers[1].register_forward_hook(lambda module, inputs, output: DRAWS[name](output))
    with pytest.raises(DipgoError, match=r"module layers\.1.*draws random numbers"):
        _trace(denoiser)


def test_what_looks_random_and_is_not_is_taken() -> None:
    denoiser = Drawn()
    denoiser.layers[1].register_forward_hook(
        lambda module, inputs, output: nn.functional.dropout(
            nn.functional.scaled_dot_product_attention(output, output, output), 0.5, training=False
        )
    )
    _trace(denoiser)
