"""The target `torch` on the CPU: the same launches, equal to ONNX Runtime's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.ir.manifest.engines import ENGINES_FILE, EngineManifest
from dipgo.models.model import Source
from dipgo.run.pipeline import Pipeline
from tests.support.random_subnets import subnet_of_random_rows
from tests.support.schedulers import ddim_for
from tests.support.zoo import ZOO, case

TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}
PROGRAMS = Path("engines") / "torch"


def zoo_export(name: str, out: Path, **options: Any) -> Path:
    """Random gates over a model of the zoo; its prologue and repeated blocks run in lanes."""
    chosen = case(name, "block")
    family, scheduler = ZOO[name].family, ddim_for(name)
    source = Source("zoo", chosen.denoiser, family, scheduler, 8, tokens=7)
    blocks = tuple(block.name for block in chosen.traced.graph.blocks)
    return export(source, subnet_of_random_rows(blocks, 6, 0.5), out, target="torch", **options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net."""
    return zoo_export("asymmetric", tmp_path_factory.mktemp("torch_target") / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dit", "sdxl", "sd3"])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_equals_onnx_runtime(name: str, precision: str, tmp_path: Path) -> None:
    out = zoo_export(name, tmp_path / "out", precision=precision, check_numerics=False)
    theirs = load(out)
    inputs = random_inputs(theirs)
    expected = theirs.run(inputs)["latents"]
    ours = load(out, target="torch", provider="cpu")
    for _ in range(2):  # nothing of a run is left over for the next
        found = ours.run(inputs)["latents"]
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        print(f"{name} {precision}: relative L2 {error:.1e}")
        assert error < TOLERANCE[precision]


def test_programs_hold_no_weights(exported: Path) -> None:
    """They are stored once, in the file that all targets read."""
    manifest = msgspec.json.decode(
        (exported / PROGRAMS / ENGINES_FILE).read_bytes(), type=EngineManifest
    )
    read = [name for record in manifest.engines.values() for name in record.weights]
    assert len(read) == len(set(read)) > 0
    for record in manifest.engines.values():
        program = json.loads((exported / PROGRAMS / record.file).read_bytes())
        assert program["weights"] == len(record.weights)


def test_another_guidance_scale_changes_the_result(exported: Path) -> None:
    runner = load(exported, target="torch", provider="cpu")
    inputs = random_inputs(runner)
    first = runner.run(inputs)["latents"]
    second = runner.run({**inputs, "guidance_scale": 1.0})["latents"]
    assert not np.allclose(first, second)
    assert np.array_equal(runner.run(inputs)["latents"], first)


@pytest.mark.slow
def test_pictures_equal_onnx_runtime(tiny_pipeline: Path, tmp_path: Path) -> None:
    out = export(tiny_pipeline, "dense", tmp_path / "out", steps=2, target="torch")
    expected = Pipeline.from_export(out)("a red circle", seed=0, output_type="np").images
    pipeline = Pipeline.from_export(out, target="torch", provider="cpu")
    found = pipeline("a red circle", seed=0, output_type="np").images
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"target": "torch", "provider": "tpu"}, "provider tpu"),
        ({"target": "onnx"}, "target onnx"),
        ({"target": "tensorrt", "provider": "cpu"}, "provider cpu"),
    ],
)
def test_unknown_targets_and_providers(
    exported: Path, arguments: dict[str, str], where: str
) -> None:
    with pytest.raises(DipgoError) as caught:
        load(exported, **arguments)  # type: ignore[arg-type]
    assert caught.value.where == where


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(exported: Path) -> None:
    with pytest.raises(DipgoError, match="without a CUDA device"):
        load(exported, target="torch")


def test_no_programs(tiny_pipeline: Path, tmp_path: Path) -> None:
    out = export(tiny_pipeline, "dense", tmp_path / "out", steps=1)
    with pytest.raises(DipgoError, match="export again with target torch"):
        load(out, target="torch", provider="cpu")


def test_a_damaged_program(exported: Path, tmp_path: Path) -> None:
    path = exported / PROGRAMS / "seg0.json"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-100])
        with pytest.raises(DipgoError, match="bytes; expected"):
            load(exported, target="torch", provider="cpu")
    finally:
        path.write_bytes(content)


def test_threads_are_onnx_runtimes(exported: Path) -> None:
    with pytest.raises(DipgoError, match="leave threads out"):
        load(exported, target="torch", provider="cpu", threads=2)


def test_no_torch(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipgo.engines.targets.find_spec", lambda name: None)
    with pytest.raises(DipgoError, match="no package torch") as caught:
        load(exported, target="torch", provider="cpu")
    assert "\n" not in str(caught.value)
