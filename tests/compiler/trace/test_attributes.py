"""Weights at paths that Python or fx takes for something else."""

from __future__ import annotations

import keyword
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dipgo.compiler.trace.attributes import attribute_of, path_of
from dipgo.compiler.trace.trace import trace
from dipgo.export.lower.callee import Lowering, lower_as_onnx
from dipgo.ir.graph import Dependence

WORDS = [*keyword.kwlist, "graph", "code", "meta", "recompile", "shape_env", "_graph"]


@given(st.lists(st.sampled_from([*WORDS, "weight", "0", "lambda ", "graph  "]), min_size=1))
def test_the_path_comes_back(words: list[str]) -> None:
    path = ".".join(words)
    assert path_of(attribute_of(path)) == path


@given(st.lists(st.text(st.characters(exclude_characters=".")), min_size=1))
def test_any_path_comes_back(words: list[str]) -> None:
    path = ".".join(words)
    assert path_of(attribute_of(path)) == path


class _Named(nn.Module):
    """Layers at such paths, one within another."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words
        for word in words:
            layer = nn.Module()
            layer.add_module(word, nn.Linear(3, 3))
            self.add_module(word, layer)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        for word in self.words:
            x = self.get_submodule(f"{word}.{word}")(x).sin()
        return (x,)


@torch.no_grad()
def test_such_weights_are_traced_and_lowered_under_their_paths(tmp_path: Path) -> None:
    torch.manual_seed(0)
    outer = nn.Module()
    outer.add_module("denoiser", _Named(WORDS))
    outer.forward = lambda x: outer.denoiser(x)  # type: ignore[method-assign]
    x = torch.rand(2, 3)
    traced = trace(
        outer, {"x": x}, {"x": Dependence.STATE}, (), model_class="Named", config_sha256=""
    )
    graph = traced.graph
    module = traced.module([node.name for node in graph.nodes], ["x"], [graph.output])
    (expected,) = outer.denoiser(x)
    assert torch.equal(module(x)[0], expected)
    lowering = Lowering(module, (x,), None)
    assert lowering.weights.keys() == outer.denoiser.state_dict().keys()
    inputs = [value.value for value in graph.inputs]
    model = lower_as_onnx(lowering, "named", inputs, [inputs[0]])
    names = {str(name).removesuffix(".transposed") for name in model.graph.initializers}
    assert names >= outer.denoiser.state_dict().keys()
    model.graph.outputs[0].name = "y"
    ir.save(model, tmp_path / "named.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "named.onnx")
    (found,) = session.run(None, {"x": x.numpy()})
    assert np.abs(found - expected.numpy()).max() < 1e-6


@pytest.mark.parametrize("word", ["weight", "layers", "0", "1 x-y", "match", "type"])
def test_other_words_stay(word: str) -> None:
    assert attribute_of(word) == word
