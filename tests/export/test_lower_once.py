"""The tests' own store of lowered graphs: it gives what lowering anew gives, and to no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

from dipgo.compiler.trace.symbolic_sizes import SizedModule
from dipgo.compiler.trace.vectorize import LanedModule
from dipgo.export.lower.onnx import lower
from tests.support.lower_once import LowerOnce
from tests.support.shared_bytes import check_shared_bytes


def _module(scale: float = 1.0, offset: int = 0) -> nn.Module:
    graph = fx.Graph()
    product = graph.call_function(
        torch.ops.aten.mm.default, (graph.placeholder("x"), graph.get_attr("weight"))
    )
    graph.output((graph.call_function(torch.ops.aten.add.Tensor, (product, offset)),))
    return fx.GraphModule({"weight": torch.arange(16.0).reshape(4, 4) * scale}, graph)


def _laned(*stacked: bool) -> nn.Module:
    graph = fx.Graph()
    left, right = graph.placeholder("left"), graph.placeholder("right")
    graph.output((graph.call_function(torch.ops.aten.add.Tensor, (left, right)),))
    return LanedModule(fx.GraphModule(nn.Module(), graph), stacked)


CASES = {
    "first": (_module(), (2, 4)),
    "other weights": (_module(scale=2.0), (2, 4)),
    "other code": (_module(offset=1), (2, 4)),
    "other shapes": (_module(), (3, 4)),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[LowerOnce, list[Any]]:
    """A store, and what it had lowered."""
    calls: list[Any] = []

    def count(module: nn.Module, *_: Any) -> ir.Model:
        calls.append(module)
        return ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)

    return LowerOnce(count), calls


def test_equal_modules_are_lowered_once(counted: tuple[LowerOnce, list[Any]]) -> None:
    store, calls = counted
    for module, shape in [*CASES.values(), (_module(), (2, 4))]:
        store(module, (torch.zeros(shape),), None, ())
    assert len(calls) == len(CASES)
    store(_module(), (torch.zeros(2, 4),), ({0: torch.export.Dim.AUTO},), ())
    assert len(calls) == len(CASES) + 1


def test_lanes_are_told_apart(counted: tuple[LowerOnce, list[Any]]) -> None:
    store, calls = counted
    example = (torch.zeros(3, 4), torch.zeros(3, 4))
    for flags in ((True, True), (True, False), (True, True)):
        store(_laned(*flags), example, None, ())
    assert len(calls) == 2


def test_sizes_are_told_apart(counted: tuple[LowerOnce, list[Any]]) -> None:
    """Traces that differ in numbers alone: the first has the code."""
    store, calls = counted
    for offsets in ((0, 1), (0, 2), (0, 1)):
        module = SizedModule([_sized(offset) for offset in offsets])
        store(module, (torch.zeros(2, 4),), None, ())
    assert len(calls) == 2


def _sized(offset: int) -> fx.GraphModule:
    module = _module(offset=offset)
    assert isinstance(module, fx.GraphModule)
    return module


def test_a_graph_whose_weights_were_changed_is_not_given_out(
    counted: tuple[LowerOnce, list[Any]],
) -> None:
    store, calls = counted
    changed = _module()
    store(changed, (torch.zeros(2, 4),), None, ())
    with torch.no_grad():
        changed.weight.add_(1)
    store(_module(), (torch.zeros(2, 4),), None, ())
    assert len(calls) == 2


def test_functions_that_are_no_operators_are_lowered_anew(
    counted: tuple[LowerOnce, list[Any]],
) -> None:
    """The code has their names alone."""
    store, calls = counted
    for scale in (2, 3):
        graph = fx.Graph()
        graph.output((graph.call_function(_times(scale), (graph.placeholder("x"),)),))
        store(fx.GraphModule(nn.Module(), graph), (torch.zeros(2, 4),), None, ())
    assert len(calls) == 2


def _times(scale: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def times(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    return times


def test_modules_that_hold_more_than_code_are_lowered_anew(
    counted: tuple[LowerOnce, list[Any]],
) -> None:
    store, calls = counted
    for _ in range(2):
        store(nn.Linear(4, 4), (torch.zeros(2, 4),), None, ())
    assert len(calls) == 2


def test_a_graph_may_be_changed() -> None:
    """`lower` renames values and moves weights: in the graph that it got, not in the store's."""
    models = [
        lower(_module(), (torch.zeros(2, 4),), name=name, inputs=[name], outputs=[f"{name}.out"])
        for name in ("one", "other", "one")
    ]
    first, other, last = (
        ir.to_proto(model).SerializeToString(deterministic=True) for model in models
    )
    assert first == last != other


@pytest.mark.slow
def test_an_export_has_the_bytes_of_one_that_is_lowered_anew(
    tiny_pipeline: Path, tmp_path: Path, lower_once: LowerOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shared_bytes(lower_once, tiny_pipeline, tmp_path, monkeypatch)
