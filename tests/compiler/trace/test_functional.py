"""Models that write into tensors, across blocks and through views; models that keep state."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.graph import Dependence
from tests.support.rare import rare_unless

ROLES = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP, "more": Dependence.PROMPT}

WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a slice": lambda x, y: x[:, 1:].copy_(torch.tanh(y[:, 1:])),
    "an element of a slice": lambda x, y: x[:, 0].mul_(0.5),
    "in place": lambda x, y: x.add_(y),
    "a view": lambda x, y: x.view(2, -1).sub_(0.25),
    "a transposed view": lambda x, y: x.transpose(1, 2)[:, :3].mul_(y.transpose(1, 2)[:, :3]),
    "a mask": lambda x, y: x.masked_fill_(y > 0.5, 0.1),
    "an index": lambda x, y: x.index_copy_(1, torch.tensor([2]), y[:, :1]),
    "filled": lambda x, y: x[..., 4:].fill_(0.3),
    "an activation": lambda x, y: nn.functional.silu(x, inplace=True),
    "a chunk": lambda x, y: x.chunk(2, dim=2)[1].clamp_(-0.5, 0.5),
    "none": lambda x, y: None,
}
"""Writes into `x` f32[2, 4, 8], with `y` of the same shape."""


class Block(nn.Module):
    """Writes, before or after a layer, into what it is called with or into its own result."""

    def __init__(self, drawn: random.Random) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.writes = drawn.choices(list(WRITES), k=2)
        self.into_input = drawn.random() < 0.4

    def forward(self, hidden: Tensor, other: Tensor) -> Tensor:
        result = self.layer(hidden)
        for write in self.writes:
            WRITES[write](hidden if self.into_input else result, other)
        return result + hidden


class Drawn(nn.Module):
    """Blocks in a row, with writes between them, into a skip connection and into an input."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        drawn = random.Random(seed)
        self.blocks = nn.ModuleList(Block(drawn) for _ in range(3))
        self.between = drawn.choices(list(WRITES), k=3)
        self.writes_input = drawn.random() < 0.5

    def forward(self, latents: Tensor, timestep: Tensor, more: Tensor) -> Tensor:
        if self.writes_input:
            more += 0.5
        hidden = latents * timestep
        skip = hidden.clone()
        for block, write in zip(self.blocks, self.between, strict=True):
            hidden = block(hidden, skip)
            WRITES[write](skip, hidden)
        return hidden + skip + more


class Guided(nn.Module):
    """Puts the denoiser at the path that tracing expects."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, latents: Tensor, timestep: Tensor, more: Tensor) -> Tensor:
        return self.denoiser(latents, timestep, more)


def _example(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents, more = torch.randn(2, 2, 4, 8, generator=generator)
    return {"latents": latents, "timestep": torch.tensor(1.5), "more": more}


def _trace(denoiser: nn.Module, *blocks: str) -> Traced:
    module = Guided(denoiser).eval()
    return trace(module, _example(0), ROLES, blocks, model_class="Drawn", config_sha256="0")


def _node_by_node(traced: Traced, example: dict[str, Tensor]) -> Tensor:
    """Computes every node of the graph by itself, with what the edges bring it."""
    values = dict(example)
    for node in traced.graph.nodes:
        names = [value.name for value in node.outputs]
        results = traced.module([node.name], node.inputs, names)(*map(values.get, node.inputs))
        values |= dict(zip(names, results, strict=True))
    return values[traced.graph.output]


SEEDS = range(60)


@torch.no_grad()
@pytest.mark.parametrize("seed", rare_unless(lambda seed: seed < 12, SEEDS))
def test_writes_are_seen_by_all_that_read(seed: int) -> None:
    """Failed at 4482adb for 39 of 60 seeds: values were those before or after another write."""
    torch.manual_seed(seed)
    denoiser = Drawn(seed)
    traced = _trace(denoiser, *(f"blocks.{index}" for index in range(3)))
    expected = denoiser(**_example(seed + 1))
    found = _node_by_node(traced, _example(seed + 1))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def _set(part: Keeping, hidden: Tensor) -> Tensor:
    if part.cache is None:
        part.cache = hidden * 2
    return part.cache


def _fill(part: Keeping, hidden: Tensor) -> Tensor:
    return part.table.setdefault("key", hidden * 2)


def _fill_within(part: Keeping, hidden: Tensor) -> Tensor:
    part.lists[0].append(hidden)
    return part.lists[0][0]


def _count(part: Keeping, hidden: Tensor) -> Tensor:
    part.calls += 1
    return hidden * part.calls


def _write_buffer(part: Keeping, hidden: Tensor) -> Tensor:
    return part.buffer.add_(hidden.mean((0, 1)))


def _replace_buffer(part: Keeping, hidden: Tensor) -> Tensor:
    part.buffer = hidden.mean((0, 1))
    return part.buffer


def _write_weight(part: Keeping, hidden: Tensor) -> Tensor:
    return part.layer.bias.mul_(0.5)


def _add_attribute(part: Keeping, hidden: Tensor) -> Tensor:
    part.added = hidden
    return hidden


def _take_other_way_first(part: Keeping, hidden: Tensor) -> Tensor:
    first, part.calls = part.calls == 0, 1
    return hidden.relu() if first else hidden


def _read_flag_in_tensor(part: Keeping, hidden: Tensor) -> Tensor:
    held, part.calls = torch.tensor([float(part.calls)]), 1
    return hidden * held


def _take_turns(part: Keeping, hidden: Tensor) -> Tensor:
    part.calls = 1 - part.calls
    return hidden


STATES = {
    "cache": _set,
    "table": _fill,
    "lists": _fill_within,
    "calls": _count,
    "buffer, written": _write_buffer,
    "buffer, replaced": _replace_buffer,
    "layer.bias": _write_weight,
    "added": _add_attribute,
    "calls, other way first": _take_other_way_first,
    "calls, in a tensor": _read_flag_in_tensor,
    "calls, in turns": _take_turns,
}


def _install_hooks(part: Keeping, hidden: Tensor) -> Tensor:
    """As transformers 5 does at the first call that asks for hidden states."""
    if not part.calls:
        part.layer.register_forward_hook(lambda *call: None)
        part.calls = 1
    return hidden


def _name_shapes(part: Keeping, hidden: Tensor) -> Tensor:
    part.names = {"axes": [len(hidden.shape)]}
    return hidden


SET_UPS = {"hooks": _install_hooks, "shapes": _name_shapes}


class Keeping(nn.Module):
    """A block that keeps something between calls, in one of the ways of STATES."""

    def __init__(self, keep: Callable[[Keeping, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.keep = nn.Linear(8, 8), keep
        self.cache: Tensor | None = None
        self.table: dict[str, Tensor] = {}
        self.lists: list[list[Tensor]] = [[]]
        self.calls = 0
        self.register_buffer("buffer", torch.zeros(8))

    def forward(self, latents: Tensor, timestep: Tensor, more: Tensor) -> Tensor:
        hidden = self.layer(latents)
        return hidden + self.keep(self, hidden) * timestep + more


class Around(nn.Module):
    """Has one block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, latents: Tensor, timestep: Tensor, more: Tensor) -> Tensor:
        return self.block(latents, timestep, more)


@pytest.mark.parametrize("name", STATES)
def test_state_is_refused_by_name(name: str) -> None:
    """Failed at 4482adb: the trace computed in every evaluation what the model keeps."""
    block = Keeping(STATES[name]).eval()
    before = {key: value for key, value in block.__dict__.items() if key[0] != "_"}
    weights = {key: value.clone() for key, value in block.state_dict().items()}
    with pytest.raises(DipgoError) as caught:
        _trace(Around(block), "block")
    assert f" block.{name.partition(',')[0]}" in str(caught.value)
    assert "every call computes the same" in str(caught.value)
    assert {key: value for key, value in block.__dict__.items() if key[0] != "_"} == before
    assert (block.table, block.lists, block.calls) == ({}, [[]], 0)
    assert all(torch.equal(block.state_dict()[key], value) for key, value in weights.items())


@pytest.mark.parametrize("name", SET_UPS)
def test_what_a_first_call_sets_up_is_no_state(name: str) -> None:
    """Failed at 21ce821: the text encoders of XL and 3 were refused with transformers 5."""
    block = Keeping(SET_UPS[name]).eval()
    traced = _trace(Around(block), "block")
    assert (block.calls, hasattr(block, "names"), block.layer._forward_hooks) == (0, False, {})
    expected = Around(block)(**_example(3))
    assert torch.allclose(_node_by_node(traced, _example(3)), expected, atol=1e-6)


def test_a_model_that_has_filled_its_cache_keeps_it() -> None:
    block = Keeping(_set)
    block.cache = cache = torch.ones(8)
    traced = _trace(Around(block), "block")
    assert block.cache is cache
    found = _node_by_node(traced, _example(3))
    assert torch.allclose(found, Around(block)(**_example(3)), atol=1e-6)
