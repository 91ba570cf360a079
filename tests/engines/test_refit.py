"""Refitting engines, on stand-ins for NVIDIA's libraries: what holds weights takes the new ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.export import export, refit
from dipgo.ir.manifest.engines import ENGINES_FILE, EngineManifest
from tests.support.nvidia_stand_in import tensorrt
from tests.support.nvidia_stand_in.install import TARGET, install, write_engines
from tests.support.nvidia_stand_in.machine import Machine

STEPS = 2


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A process with the stand-ins."""
    return install(monkeypatch)


@pytest.fixture(scope="module")
def plain(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export without engines."""
    return export(tiny_pipeline, "dense", tmp_path_factory.mktemp("plain") / "out", steps=STEPS)


@pytest.fixture
def built(plain: Path, machine: Machine, tmp_path: Path) -> Path:
    """A copy, with engines that can be refitted."""
    out = Path(shutil.copytree(plain, tmp_path / "built"))
    write_engines(out, refittable=True)
    return out


@pytest.fixture(scope="module")
def other(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline with another denoiser of the same architecture."""
    torch.manual_seed(1)
    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.unet = type(pipeline.unet).from_config(pipeline.unet.config)
    path = tmp_path_factory.mktemp("other") / "pipeline"
    pipeline.save_pretrained(path)
    return path


def _latents(out: Path, target: str) -> np.ndarray:
    runner, random = load(out, target=target), np.random.default_rng(0)
    given = {
        name: np.asarray(random.normal(size=kind.shape), np.float32)
        for name, kind in runner.inputs.items()
    }
    return runner.run(given)["latents"]


def _engines(out: Path) -> EngineManifest:
    content = (out / "engines" / TARGET / ENGINES_FILE).read_bytes()
    return msgspec.json.decode(content, type=EngineManifest)


@pytest.mark.slow
def test_engines_have_the_new_weights(built: Path, other: Path, tmp_path: Path) -> None:
    """Refitted twice: the second time from engines that were refitted."""
    once = refit(built, other, tmp_path / "once")
    assert np.abs(_latents(once, TARGET) - _latents(once, "onnxruntime")).max() < 1e-6
    assert np.abs(_latents(once, TARGET) - _latents(built, TARGET)).max() > 1e-2
    twice = refit(once, other, once, force=True)
    assert np.abs(_latents(twice, TARGET) - _latents(twice, "onnxruntime")).max() < 1e-6
    before, after = _engines(built), _engines(twice)
    assert (before.refittable, after.refittable) == (True, True)
    assert before.plan_sha256 != after.plan_sha256
    assert all(before.engines[name].key != one.key for name, one in after.engines.items())


def test_engines_that_were_not_built_for_it(
    plain: Path, other: Path, machine: Machine, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(plain, tmp_path / "built"))
    write_engines(out)
    with pytest.raises(DipgoError, match=r"engines/tensorrt: found engines that cannot be refit.*"
                       r"--refittable, or leave the engines out: without_engines"):  # fmt: skip
        refit(out, other, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["built"]
    new = refit(out, other, tmp_path / "new", without_engines=True)
    assert not (new / "engines").exists()


def test_another_gpu(
    built: Path, other: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, name="Another GPU", capability=(9, 0))
    with pytest.raises(DipgoError, match="found engines for Stand-in GPU; expected Another GPU"):
        refit(built, other, tmp_path / "new")


def test_an_engine_of_another_graph(built: Path, other: Path, tmp_path: Path) -> None:
    """What the library says is told, and nothing is written."""
    folder, engines = built / "engines" / TARGET, _engines(built)
    names = [one.file for one in engines.engines.values()]
    shutil.copyfile(folder / names[1], folder / names[0])
    with pytest.raises(DipgoError, match=r"engine seg.*: found weights of another network"):
        refit(built, other, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built"]


def test_a_damaged_engine(built: Path, other: Path, tmp_path: Path) -> None:
    folder = built / "engines" / TARGET
    (folder / next(iter(_engines(built).engines.values())).file).write_bytes(b"no engine")
    with pytest.raises(DipgoError, match="an engine that cannot be loaded here"):
        refit(built, other, tmp_path / "new")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "yields", "words"),
    [
        ("get_missing_weights", ["a", "b"], "no weights for a, b"),
        ("refit_cuda_engine", False, "weights that the engine does not take"),
    ],
)
def test_what_the_library_refuses(
    built: Path,
    other: Path,
    method: str,
    yields: Any,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tensorrt.Refitter, method, lambda refitter: yields)
    with pytest.raises(DipgoError, match=words):
        refit(built, other, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["built"]


@pytest.mark.parametrize(
    "flags", [(), ("REFIT",), ("REFIT_IDENTICAL",), ("REFIT_INDIVIDUAL",), ("STRIP_PLAN",)]
)
def test_the_real_library_builds_nothing_refittable_without_a_gpu(flags: tuple[str, ...]) -> None:
    """One product and a sum, in a process of its own: it may not survive it."""
    pytest.importorskip("tensorrt_rtx")
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    command = [sys.executable, "-c", BUILDS_A_PRODUCT, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr)
    assert (done.returncode == 0) == (flags == ())


BUILDS_A_PRODUCT = """
import sys
import numpy as np
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
x = network.add_input("x", trt.float16, (4, 64))
weight = network.add_constant((64, 64), np.eye(64, dtype=np.float16))
bias = network.add_constant((1, 64), np.ones((1, 64), np.float16))
none = trt.MatrixOperation.NONE
product = network.add_matrix_multiply(x, none, weight.get_output(0), none)
sides = product.get_output(0), bias.get_output(0)
total = network.add_elementwise(*sides, trt.ElementWiseOperation.SUM)
network.mark_output(total.get_output(0))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
for flag in sys.argv[1:]:
    config.set_flag(getattr(trt.BuilderFlag, flag))
if "REFIT_INDIVIDUAL" in sys.argv:
    network.set_weights_name(weight.weights, "weight")
    assert network.mark_weights_refittable("weight")
sys.exit(builder.build_serialized_network(network, config) is None)
"""


def test_without_a_gpu_no_such_engine_is_built(
    plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT for RTX builds without one, but not engines that can be refitted."""
    import dipgo.build

    pytest.importorskip("tensorrt_rtx")
    given = [plain, "--target", "tensorrt-rtx", "--compute-capability", "8.9", "--refittable"]
    assert run_command(dipgo.build.main, list(map(str, given))) == 2
    said = capsys.readouterr().err
    assert "--refittable: found TensorRT for RTX without a GPU" in said
    assert not (plain / "engines").exists()
