"""Graphs for OpenVINO: older operators in place of the newest, and the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.export.lower.onnx import lower
from dipgo.export.lower.openvino_opset import decompose
from dipgo.models.model import Source
from dipgo.run.pipeline import Pipeline
from tests.support.random_subnets import subnet_of_random_rows
from tests.support.schedulers import ddim_for
from tests.support.zoo import ZOO, case

TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3}
"""Relative L2."""
NEWEST = {"Attention", "GroupNormalization"}
MODELS = ("asymmetric", "dit", "sdxl", "sd3")


def _export(name: str, out: Path, **options: Any) -> Path:
    """Random gates over a model of the zoo."""
    chosen = case(name, "block")
    scheduler = ddim_for(name)
    source = Source("zoo", chosen.denoiser, ZOO[name].family, scheduler, 8, tokens=7)
    blocks = tuple(block.name for block in chosen.traced.graph.blocks)
    return export(source, subnet_of_random_rows(blocks, 6, 0.5), out, **options)


def _operators(out: Path) -> Iterator[str]:
    for path in out.glob("*.onnx"):
        for node in ir.load(path).graph.all_nodes():
            assert node.domain == ""
            yield node.op_type


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_same_latents(name: str, tmp_path: Path) -> None:
    native, apart = (
        _export(name, tmp_path / target, target=target) for target in ("onnxruntime", "openvino")
    )
    assert set(_operators(native)) & NEWEST
    assert not set(_operators(apart)) & NEWEST
    runner = load(native)
    inputs = random_inputs(runner)
    error = _error(load(apart).run(inputs)["latents"], runner.run(inputs)["latents"])
    print(f"{name}: relative L2 {error:.1e}")
    assert error < TOLERANCE[torch.float32]


def test_same_weights(tmp_path: Path) -> None:
    """Every weight once, under the same name; nothing is folded into another."""
    stored = []
    for target in ("onnxruntime", "openvino"):
        out = _export("asymmetric", tmp_path / target, target=target)
        with safe_open(out / "weights.safetensors", "np") as file:
            stored.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    assert stored[0].keys() == stored[1].keys()
    assert all(np.array_equal(stored[0][name], stored[1][name]) for name in stored[0])


@pytest.mark.slow
def test_graphs_are_typed(tmp_path: Path) -> None:
    """Inference finds for every value the type that the operators demand, or fails."""
    out = _export("asymmetric", tmp_path / "out", target="openvino", precision="fp16")
    for path in out.glob("*.onnx"):
        onnx.checker.check_model(path, full_check=True)


@pytest.mark.slow
def test_several_sizes(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Shapes that differ from run to run are computed in the graph."""
    outs = [
        export(
            tiny_pipeline, "dense", tmp_path / target, steps=2, target=target, also_sizes=[(96, 64)]
        )
        for target in ("onnxruntime", "openvino")
    ]
    for size in ("", "96x64"):
        native, apart = (load(out, size=size) for out in outs)
        inputs = random_inputs(native)
        error = _error(apart.run(inputs)["latents"], native.run(inputs)["latents"])
        assert error < TOLERANCE[torch.float32]


@pytest.mark.slow
def test_same_pictures(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Text encoder, whose attention has a mask, denoiser and VAE."""
    pictures = []
    for target in ("onnxruntime", "openvino"):
        out = export(tiny_pipeline, "dense", tmp_path / target, steps=3, target=target)
        assert (target == "openvino") is not bool(set(_operators(out)) & NEWEST)
        made = Pipeline.from_export(out)("a red circle", seed=0, output_type="np")
        pictures.append(made.images)
    assert _error(pictures[1], pictures[0]) < TOLERANCE[torch.float32]


class _Attention(nn.Module):
    """Attention with whatever options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return scaled_dot_product_attention(query, key, 2 * key, mask, **self.options)


class _Normalized(nn.Module):
    """GroupNorm with a weight of its own for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 6, eps=1e-2)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(data)
        return result


def _check(module: nn.Module, inputs: list[torch.Tensor], operator: str) -> None:
    """The graph taken apart, on ONNX Runtime, against torch."""
    names = [f"input_{index}" for index in range(len(inputs))]
    model = lower(module, inputs, name="one", inputs=names, outputs=["result"])
    assert operator in [node.op_type for node in model.graph]
    decompose(model)
    assert not NEWEST & {node.op_type for node in model.graph}
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    given = {
        one.name: tensor.numpy() for one, tensor in zip(model.graph.inputs, inputs, strict=True)
    }
    with torch.no_grad():
        expected = module(*inputs).float().numpy()
    found = session.run(["result"], given)[0].astype(np.float32)
    assert found.shape == expected.shape
    assert _error(found, expected) < TOLERANCE[inputs[0].dtype]


MASKS = {
    "none": lambda scores: [],
    "truth": lambda scores: [(scores > -0.5).index_fill(-1, torch.tensor([0]), True)],
    "numbers": lambda scores: [scores],
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}])
def test_attention(options: dict[str, float], mask: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, scores = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 1, 5, 7)
    given = [one.to(dtype) for one in (query, key)]
    masks = [one if one.dtype == torch.bool else one.to(dtype) for one in MASKS[mask](scores)]
    _check(_Attention(**options), [*given, *masks], "Attention")


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 5, 4), (1, 6, 3, 2, 2)])
def test_group_normalization(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    _check(_Normalized(), [3 + torch.randn(shape)], "GroupNormalization")


def test_attention_that_looks_back_only_is_refused() -> None:
    module, one = _Attention(is_causal=True), torch.randn(1, 2, 4, 8)
    model = lower(module, [one, one], name="one", inputs=["q", "k"], outputs=["y"])
    with pytest.raises(DipgoError, match="is_causal") as caught:
        decompose(model)
    assert "\n" not in str(caught.value)
    assert caught.value.where.startswith("graph one, node ")
