"""The tests' own store of traces: it gives what tracing anew gives, and to no other models."""

from __future__ import annotations

import collections
import copy
import decimal
import functools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from dipgo.compiler.trace.precision import Precision
from dipgo.compiler.trace.source import trace_source
from dipgo.compiler.trace.trace import Traced
from dipgo.models.family import Geometry
from dipgo.models.gap_functions import GapShape
from dipgo.models.model import Source
from tests.support.shared_bytes import check_shared_bytes
from tests.support.trace_once import TraceOnce, describe
from tests.support.zoo import ZOO, case

BLOCKS = ("up_blocks.0",)


def _source() -> Source:
    """A model that equals that of any other call."""
    denoiser = copy.deepcopy(case("one_level", "block").denoiser)
    scheduler = DDIMScheduler(clip_sample=False)
    return Source("unet", denoiser, ZOO["one_level"].family, scheduler, 8, tokens=7)


def _weight(source: Source) -> torch.Tensor:
    return next(iter(source.denoiser.parameters()))


@pytest.fixture
def counted() -> tuple[TraceOnce, list[Source]]:
    """A store, and what it had traced."""
    sources: list[Source] = []

    def count(source: Source, *settings: Any) -> Traced:
        sources.append(source)
        return trace_source(source, *settings)

    return TraceOnce(count), sources


def test_equal_models_are_traced_once(counted: tuple[TraceOnce, list[Source]]) -> None:
    store, sources = counted
    first = store(_source(), Geometry(), BLOCKS)
    assert store(_source(), Geometry(), BLOCKS) is first
    assert len(sources) == 1


def _other_weight(source: Source) -> None:
    _weight(source).view(-1)[0] += 1


def _other_attribute(source: Source) -> None:
    module = source.denoiser.get_submodule("mid_block.resnets.0")
    module.output_scale_factor = 2.0  # type: ignore[assignment]


def _other_processor(source: Source) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    source.denoiser.set_attn_processor(AttnProcessor())  # type: ignore[operator]


@pytest.mark.parametrize("change", [_other_weight, _other_attribute, _other_processor])
def test_other_models_are_traced_anew(
    counted: tuple[TraceOnce, list[Source]], change: Callable[[Source], None]
) -> None:
    store, sources = counted
    store(_source(), Geometry(), BLOCKS)
    changed = _source()
    with torch.no_grad():
        change(changed)
    store(changed, Geometry(), BLOCKS)
    assert len(sources) == 2


def test_other_settings_are_traced_anew(counted: tuple[TraceOnce, list[Source]]) -> None:
    store, sources = counted
    gap = GapShape("reuse_filters", 1, halves=False, table=(4, 4, 1, 1))
    settings: list[tuple[Any, ...]] = [
        (Geometry(), BLOCKS),
        (Geometry(guidance=False), BLOCKS),
        (Geometry(batch=2), BLOCKS),
        (Geometry(), ("mid_block",)),
        (Geometry(), BLOCKS, Precision("fp16")),
        (Geometry(), BLOCKS, Precision(), gap),
    ]
    for row in settings * 2:
        store(_source(), *row)
    assert len(sources) == len(settings)


def test_a_trace_whose_weights_were_changed_is_not_given_out(
    counted: tuple[TraceOnce, list[Source]],
) -> None:
    """It holds the tensors of the model that it was made of."""
    store, sources = counted
    changed = _source()
    store(changed, Geometry(), BLOCKS)
    with torch.no_grad():
        _other_weight(changed)
    traced = store(_source(), Geometry(), BLOCKS)
    assert len(sources) == 2
    assert describe(traced.exact_tensors) == describe(
        trace_source(_source(), Geometry(), BLOCKS).exact_tensors
    )


def test_what_it_cannot_look_into_is_traced_anew(counted: tuple[TraceOnce, list[Source]]) -> None:
    store, sources = counted
    for _ in range(2):
        source = _source()
        source.denoiser.register_forward_hook(lambda *_: None)
        store(source, Geometry(), BLOCKS)
    assert len(sources) == 2


def _toy(scale: int) -> nn.Module:
    class Toy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * scale

    return Toy()


@pytest.mark.parametrize(
    "value",
    [
        functools.partial(nn.functional.leaky_relu, negative_slope=0.1),
        lambda x: x,
        np.array([1.0]),
        np.float32(1),
        collections.deque([1]),
        operator.itemgetter(1),
        decimal.Decimal(1),
        torch.Generator(),
        collections.Counter("a"),
        _toy(2),
        iter([1]),
    ],
)
def test_what_holds_more_than_its_attributes_has_no_key(value: Any) -> None:
    with pytest.raises(TypeError):
        describe([value])


def test_values_made_on_the_way_are_told_apart() -> None:
    """An object that is gone may leave its address to the next."""
    pairs = [({"a": (index, [index])}, {"a": (index, [index + 1])}) for index in range(50)]
    assert all(describe(one) != describe(other) for one, other in pairs)


@pytest.mark.slow
def test_an_export_has_the_bytes_of_one_that_is_traced_anew(
    tiny_pipeline: Path, tmp_path: Path, trace_once: TraceOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shared_bytes(trace_once, tiny_pipeline, tmp_path, monkeypatch)
