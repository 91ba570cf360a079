"""Exports on ONNX Runtime's OpenVINO provider against its CPU provider: `make test-openvino`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from diffusers import DDIMScheduler
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.probe import probe
from dipgo.engines import load
from dipgo.engines.onnxruntime.session import SessionSettings, make_session
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.ir.subnet.subnet import SubNet
from dipgo.run.pipeline import Pipeline

pytestmark = pytest.mark.openvino

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo" / "model"
DEMO_SUBNET = ROOT / "examples" / "subnets" / "demo-dipgo-0.80.json"
TOLERANCE = {"openvino": 1e-3, "openvino-bf16": 0.05}
"""Relative L2 of the latents; bf16 has 8 bits of mantissa and the steps add up."""
LEAST_BF16 = 1e-4
"""Nearer than this to f32, it has not been bf16."""
BLOCKS = ("conv_in", "down_blocks.0", "mid_block", "up_blocks.0", "up_blocks.3")
GATES = ("11111", "00001", "11011", "00000", "10111")


def _error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _tiny_subnet() -> SubNet:
    timesteps = probe(DDIMScheduler(clip_sample=False, steps_offset=1), len(GATES)).timesteps
    table = np.array([[gate == "1" for gate in row] for row in GATES])
    return SubNet(len(GATES), timesteps, BLOCKS, table, ("output",) * len(BLOCKS))


@pytest.fixture(scope="module")
def pairs(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For ONNX Runtime's CPU provider and for OpenVINO, by name."""
    folder = tmp_path_factory.mktemp("openvino")
    asked: dict[str, tuple[Path, Any, dict[str, Any]]] = {
        "tiny dense": (tiny_pipeline, "dense", {"steps": 4}),
        "tiny subnet": (tiny_pipeline, _tiny_subnet(), {"scheduler": "ddim"}),
        "demo dense": (DEMO, "dense", {"steps": 20, "scheduler": "ddim"}),
        "demo subnet": (DEMO, DEMO_SUBNET, {}),
    }
    return {
        name: tuple(
            export(model, subnet, folder / f"{name} {target}", target=target, **options)
            for target in ("onnxruntime", "openvino")
        )
        for name, (model, subnet, options) in asked.items()
    }


@pytest.mark.parametrize("provider", TOLERANCE)
@pytest.mark.parametrize("name", ["tiny dense", "tiny subnet", "demo dense", "demo subnet"])
def test_latents(pairs: dict[str, Any], name: str, provider: str) -> None:
    native, apart = pairs[name]
    expected = Pipeline.from_export(native)("a red circle", seed=0, output_type="latent").images
    pipeline = Pipeline.from_export(apart, provider=provider)
    for _ in range(2):  # nothing of a run is left over for the next
        found = pipeline("a red circle", seed=0, output_type="latent").images
        error = _error(found, expected)
        print(f"{name}, {provider}: relative L2 {error:.1e}")
        assert error < TOLERANCE[provider]
    if provider == "openvino-bf16":
        assert error > LEAST_BF16


def test_pictures(pairs: dict[str, Any]) -> None:
    """With the text encoder's and the VAE's graphs."""
    native, apart = pairs["demo subnet"]
    expected = Pipeline.from_export(native)("a red circle", seed=0, output_type="np").images
    found = Pipeline.from_export(apart, provider="openvino")(
        "a red circle", seed=0, output_type="np"
    ).images
    assert np.abs(found - expected).max() < 1e-3


def test_several_sizes(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Graphs whose shapes are symbolic."""
    out = export(
        tiny_pipeline, "dense", tmp_path / "out", steps=2, target="openvino", also_sizes=[(96, 64)]
    )
    for size in ("", "96x64"):
        reference = load(out, size=size)
        inputs = random_inputs(reference)
        found = load(out, size=size, provider="openvino").run(inputs)["latents"]
        assert _error(found, reference.run(inputs)["latents"]) < TOLERANCE["openvino"]


def test_threads(pairs: dict[str, Any]) -> None:
    _, apart = pairs["tiny subnet"]
    one, two = (load(apart, provider="openvino", threads=threads) for threads in (1, 2))
    inputs = random_inputs(one)
    assert _error(one.run(inputs)["latents"], two.run(inputs)["latents"]) < TOLERANCE["openvino"]


def test_attention_is_refused(pairs: dict[str, Any]) -> None:
    native, _ = pairs["tiny dense"]
    with pytest.raises(DipgoError, match=r"does not take: .*Attention") as caught:
        load(native, provider="openvino")
    assert "target openvino" in str(caught.value)
    assert "\n" not in str(caught.value)


DETERMINANT = """
<ir_version: 10, opset_import: ["": 22]>
determinant (float[2, 4, 4] x) => (float[2] y) {
    found = Det (x)
    y = Abs (found)
}
"""


def test_nodes_left_to_the_cpu_provider_are_refused(tmp_path: Path) -> None:
    """ONNX Runtime would run them itself and say nothing: the session can be made."""
    onnx.save(onnx.parser.parse_model(DETERMINANT), tmp_path / "graph.onnx")
    with pytest.raises(DipgoError, match="OpenVINO does not take: Det;") as caught:
        make_session(tmp_path / "graph.onnx", SessionSettings("openvino"))
    assert caught.value.__cause__ is None
