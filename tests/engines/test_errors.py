"""Bad input to the TensorRT runtime: one line, exit code 2, and nothing held on the device."""

from __future__ import annotations

import builtins
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dipgo.build
import dipgo.engines.tensorrt.cuda
import dipgo.run.__main__
from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.tensorrt.build_cache import BuildCache
from dipgo.ir.manifest.engines import ENGINES_FILE
from dipgo.ir.manifest.records import MANIFEST_FILE
from tests.support.nvidia_stand_in import tensorrt
from tests.support.nvidia_stand_in.install import TARGET, install, write_engines
from tests.support.nvidia_stand_in.machine import reset

RTX = "tensorrt-rtx"
Fragments = tuple[str, str, str]
"""Of where, of what was found, of what was expected or is to be done."""


@pytest.fixture(scope="module")
def with_engines(sample_exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batched export, so that some engines have profiles."""
    path = tmp_path_factory.mktemp("engine_errors") / "export"
    shutil.copytree(sample_exports["batched"], path)
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        write_engines(path)
    return path


@pytest.fixture
def copied(with_engines: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(with_engines, tmp_path / "export"))


def _engines(path: Path) -> Path:
    return path / "engines" / TARGET


def _change(path: Path, change: Callable[[Any], object]) -> None:
    file = _engines(path) / ENGINES_FILE
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def _narrow(content: Any) -> None:
    """Every profile becomes that of a single lane."""
    for engine in content["engines"].values():
        for one in engine["profile"].values():
            one["max"] = one["opt"] = one["min"]


def _shorten(content: Any) -> None:
    """Of unequal lengths, as no build writes it."""
    for engine in content["engines"].values():
        for one in engine["profile"].values():
            one["min"] = one["min"][:-1]


def _first(path: Path) -> Path:
    return sorted(_engines(path).glob("*.engine"))[0]


def _change_bytes(path: Path) -> None:
    content = bytearray(_first(path).read_bytes())
    content[-1] ^= 1
    _first(path).write_bytes(content)


def _append_to_plan(path: Path) -> None:
    (path / MANIFEST_FILE).write_text((path / MANIFEST_FILE).read_text() + "\n")


DAMAGE: dict[str, tuple[Callable[[Path], object], Fragments]] = {
    "never built": (
        lambda path: shutil.rmtree(_engines(path)),
        ("engines/tensorrt", "no engines", "python -m dipgo.build"),
    ),
    "another graph": (
        _append_to_plan,
        ("engines/tensorrt", "another export", "python -m dipgo.build"),
    ),
    "another GPU's name": (
        lambda path: _change(path, lambda x: x.update(gpu="Other GPU")),
        ("engines/tensorrt", "engines for Other GPU", "Stand-in GPU, compute capability 8.6"),
    ),
    "another compute capability": (
        lambda path: _change(path, lambda x: x.update(gpu=None, compute_capabilities=["8.9"])),
        ("engines/tensorrt", "compute capability 8.9", "compute capability 8.6"),
    ),
    "another version": (
        lambda path: _change(path, lambda x: x.update(library_version="10.1.0")),
        ("engines/tensorrt", "TensorRT 10.1.0", "TensorRT 11.0.0"),
    ),
    "a missing engine": (
        lambda path: _change(path, lambda x: x["engines"].popitem()),
        ("engines/tensorrt", "no engine", "one for each graph"),
    ),
    "no engine's file": (
        lambda path: _first(path).unlink(),
        ("engines/tensorrt", "no file", "python -m dipgo.build"),
    ),
    "a truncated engine": (
        lambda path: _first(path).write_bytes(_first(path).read_bytes()[:9]),
        (".engine", "9 bytes", "python -m dipgo.build"),
    ),
    "other bytes": (_change_bytes, (".engine", "other bytes", "python -m dipgo.build")),
    "a profile too narrow": (
        lambda path: _change(path, _narrow),
        ("engines/tensorrt", "whose input", "as the plan has it"),
    ),
    "a profile of unequal lengths": (
        lambda path: _change(path, _shorten),
        ("engines/tensorrt", "whose input", "as the plan has it"),
    ),
    "a damaged manifest": (
        lambda path: (_engines(path) / ENGINES_FILE).write_text("{"),
        (ENGINES_FILE, "not JSON", "python -m dipgo.build"),
    ),
    "a manifest of something else": (
        lambda path: _change(path, lambda x: x.update(format="other")),
        (ENGINES_FILE, "'other'", "a value the format allows; python -m dipgo.build"),
    ),
    "no manifest": (
        lambda path: (_engines(path) / ENGINES_FILE).unlink(),
        (ENGINES_FILE, "No such file", "the manifest of built engines"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_engines_that_do_not_fit(
    name: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = install(monkeypatch)
    damage, fragments = DAMAGE[name]
    damage(copied)
    _run_refused(copied, fragments, capsys)
    assert not machine.counts["execute_async_v3"]
    assert (machine.used, len(machine.streams), machine.objects) == (0, 1, {})


def _run_refused(
    path: Path, fragments: Fragments, capsys: pytest.CaptureFixture[str], *more: str
) -> None:
    """The command `run`; the error is dropped when it returns, and what it held with it."""
    latents = path.parent / "latents.npy"
    given = [str(path), "--prompt", "x", "--latents", str(latents), "--target", TARGET, *more]
    assert run_command(dipgo.run.__main__.main, given) == 2
    _check(capsys.readouterr().err, fragments)
    assert not latents.exists()


def _check(stderr: str, fragments: Fragments) -> None:
    *_, message = stderr.splitlines()
    assert "Traceback" not in stderr
    rest = message
    where, found, after = fragments
    for fragment in ("error: ", where, ": found ", found, "; expected ", after):
        # What is expected may itself be what comes after.
        assert fragment in rest, f"{fragment!r} is not in its place in {message!r}"
        rest = rest[rest.index(fragment) + len(fragment) :]


def test_too_little_memory_is_told_before_engines_are_loaded(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = install(monkeypatch, total=1 << 10)
    fragments = ("target tensorrt", "MiB of free device memory", "MiB for engines and slots")
    _run_refused(with_engines, fragments, capsys)
    assert not machine.counts["deserialize_cuda_engine"] + machine.counts["cuMemAlloc"]


def test_too_little_memory_for_what_engines_execute_in(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known only when contexts are made: engines are given back."""
    machine = install(monkeypatch)
    monkeypatch.setattr(
        tensorrt.IExecutionContext, "update_device_memory_size_for_shapes", lambda self: 1 << 40
    )
    fragments = ("target tensorrt", "MiB of free device memory", "what engines execute in")
    _run_refused(with_engines, fragments, capsys)
    assert machine.counts["deserialize_cuda_engine"]
    assert machine.used == 0


REFUSED: dict[str, tuple[type, str, Any, Fragments]] = {
    "an engine that is not loaded": (
        tensorrt.Runtime,
        "deserialize_cuda_engine",
        lambda self, content: None,
        (".engine", "does not load", "python -m dipgo.build"),
    ),
    "no context": (
        tensorrt.ICudaEngine,
        "create_execution_context",
        lambda self, strategy: None,
        ("engine ", "no execution context", "one"),
    ),
    "a shape that is not taken": (
        tensorrt.IExecutionContext,
        "set_input_shape",
        lambda self, name, shape: False,
        ("engine ", "does not take", "build"),
    ),
    "a launch that fails": (
        tensorrt.IExecutionContext,
        "execute_async_v3",
        lambda self, stream: False,
        ("engine ", "could not be queued", "a launch"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_library_refuses(
    name: str,
    with_engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = install(monkeypatch)
    kind, method, instead, fragments = REFUSED[name]
    monkeypatch.setattr(kind, method, instead)
    _run_refused(with_engines, fragments, capsys)
    assert (machine.used, len(machine.streams), machine.objects) == (0, 1, {})


def test_no_gpu(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    reset(gpus=0)
    _run_refused(with_engines, ("target tensorrt", "NO_DEVICE", "an NVIDIA GPU"), capsys)


def test_no_cuda_driver(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real bindings, where there is no driver."""
    pytest.importorskip("cuda.bindings.driver")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a driver")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    _run_refused(with_engines, ("target tensorrt", "no CUDA driver", "an NVIDIA GPU"), capsys)


def test_no_bindings(
    with_engines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    _hide(monkeypatch, "cuda")
    fragments = ("target tensorrt", "no package cuda-bindings", "pip install cuda-bindings")
    _run_refused(with_engines, fragments, capsys)


def _hide(patch: pytest.MonkeyPatch, package: str) -> None:
    """As if it were not installed."""
    real = builtins.__import__

    def refuse(name: str, *others: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *others)

    patch.setattr(builtins, "__import__", refuse)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="there is TensorRT")
def test_no_tensorrt(with_engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fragments = ("target tensorrt", "No module named 'tensorrt'", "pip install '.[tensorrt]'")
    _run_refused(with_engines, fragments, capsys)


def test_provider_cpu(with_engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fragments = ("provider cpu", "target tensorrt", "cuda, or none")
    _run_refused(with_engines, fragments, capsys, "--provider", "cpu")


def test_an_unknown_target(with_engines: Path) -> None:
    with pytest.raises(DipgoError, match=r"^target openvino: found .+; expected onnxruntime, "):
        load(with_engines, target="openvino")


BUILDS: dict[str, tuple[list[str], Fragments]] = {
    "an unknown target": (["openvino"], ("target openvino", "no engines are built", "tensorrt")),
    "onnxruntime": (["onnxruntime"], ("target onnxruntime", "no engines are built", "tensorrt")),
    "a capability that is not built for": (
        [RTX, "--compute-capability", "9.0"],
        ("--compute-capability 9.0", "does not build for", "8.6"),
    ),
    "a capability that is none": (
        [RTX, "--compute-capability", "sm86"],
        ("--compute-capability sm86", "does not build for", "8.6"),
    ),
    "no GPU and no capability": ([RTX], (f"target {RTX}", "no CUDA driver", "--compute-cap")),
}


@pytest.mark.parametrize("name", BUILDS)
def test_arguments_of_build(name: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if RTX in BUILDS[name][0]:
        pytest.importorskip("tensorrt_rtx")
    _build_refused(copied, *BUILDS[name], capsys)


def _build_refused(
    path: Path, arguments: list[str], fragments: Fragments, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.rglob("*"))
    given = [str(path), "--target", *arguments, "--no-build-cache"]
    assert run_command(dipgo.build.main, given) == 2
    _check(capsys.readouterr().err, fragments)
    assert sorted(path.rglob("*")) == before


def test_tensorrt_builds_for_the_gpu_at_hand(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    fragments = ("--compute-capability", "8.6 for the target tensorrt", "the GPU of this machine")
    _build_refused(copied, [TARGET, "--compute-capability", "8.6"], fragments, capsys)


def test_no_polygraphy(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "polygraphy" else real(name)
    )
    fragments = ("target tensorrt", "no package polygraphy", "pip install '.[tensorrt]'")
    _build_refused(copied, [TARGET], fragments, capsys)


def test_a_build_cache_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DipgoError, match="give another folder as cache") as caught:
        BuildCache(file / "cache")
    assert "\n" not in str(caught.value)
