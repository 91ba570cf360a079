"""Building with the real TensorRT for RTX, which needs no GPU: cache, failures, profiles."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

import dipgo.build
import dipgo.engines.tensorrt.build as build
from dipgo.common.cli import run_command
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export import export
from dipgo.ir.manifest.engines import ENGINES_FILE, EngineManifest
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE

TARGET = "tensorrt-rtx"

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("polygraphy")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the module's first build fills."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(tiny_pipeline: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fp16 export of the tiny pipeline with its engines for compute capability 8.6."""
    out = tmp_path_factory.mktemp("built") / "out"
    export(tiny_pipeline, "dense", out, steps=2, precision="fp16")
    assert _build(out, cache) == 0
    return out


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A copy under another name, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "another name"))


class _Builds:
    """Counts what is built; it builds nothing, unless it is to fail as the real builder does."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, request: build.BuildRequest) -> None:
        self.names.append(name)
        Path(request.engine).write_bytes(b"an engine")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> _Builds:
    """In the place of the builder's process."""
    counted = _Builds()
    monkeypatch.setattr(build, "_build_in_a_process", counted)
    return counted


def _build(out: Path, cache: Path, capability: str = "8.6") -> int:
    given: list[Any] = [out, "--target", TARGET, "--compute-capability", capability]
    return run_command(dipgo.build.main, list(map(str, [*given, "--build-cache", cache])))


def _engines(out: Path) -> EngineManifest:
    content = (out / "engines" / TARGET / ENGINES_FILE).read_bytes()
    return msgspec.json.decode(content, type=EngineManifest)


@pytest.mark.slow
def test_a_build_writes_an_engine_for_every_graph(built: Path) -> None:
    opened, manifest = ExportDirectory.open(built), _engines(built)
    assert list(manifest.engines) == [*opened.engine_files, *opened.manifest.parts]
    assert (manifest.gpu, manifest.compute_capabilities) == (None, ["8.6"])
    folder = built / "engines" / TARGET
    for record in manifest.engines.values():
        content = (folder / record.file).read_bytes()
        assert len(content) == record.nbytes > 1000
        assert hashlib.sha256(content).hexdigest() == record.sha256
    assert len(list(folder.iterdir())) == len(manifest.engines) + 1


def test_the_cache_has_every_engine(copied: Path, cache: Path, builds: _Builds) -> None:
    """Of the same export under another name; its engines are the same bytes."""
    before = _engines(copied)
    shutil.rmtree(copied / "engines")
    assert _build(copied, cache) == 0
    assert builds.names == []
    assert _engines(copied) == before


def test_the_cache_does_not_know_names(copied: Path, cache: Path, builds: _Builds) -> None:
    """A segment by another name, of a graph in another file, has the key that it had."""
    opened = ExportDirectory.open(copied)
    old = opened.manifest.segments[0]
    _rename(copied, old.name, old.file)
    assert _build(copied, cache) == 0
    assert builds.names == []
    assert "renamed" in _engines(copied).engines


def _rename(out: Path, name: str, file: str) -> None:
    """The segment's name in the plan and in the manifest, and its graph's file."""
    (out / file).rename(out / "renamed.onnx")
    text = (out / MANIFEST_FILE).read_text()
    text = text.replace(f'"{file}"', '"renamed.onnx"').replace(f'"{name}"', '"renamed"')
    (out / MANIFEST_FILE).write_text(text)


def test_another_capability_is_another_engine(copied: Path, cache: Path, builds: _Builds) -> None:
    assert _build(copied, cache, "8.9") == 0
    assert sorted(builds.names) == sorted(_engines(copied).engines)


def test_another_weight_is_another_engine(copied: Path, cache: Path, builds: _Builds) -> None:
    weights = load_file(copied / WEIGHTS_FILE)
    first = next(iter(weights))
    weights[first] = weights[first] + np.ones((), weights[first].dtype)
    save_file(weights, copied / WEIGHTS_FILE)
    _update_hash(copied, WEIGHTS_FILE)
    assert _build(copied, cache) == 0
    assert sorted(builds.names) == sorted(_engines(copied).engines)


def _update_hash(out: Path, file: str) -> None:
    """As if the export had written the file as it is now."""
    content, manifest = (out / file).read_bytes(), (out / MANIFEST_FILE)
    raw = msgspec.json.decode(manifest.read_bytes())
    raw["files"][file] |= {
        "sha256": hashlib.sha256(content).hexdigest(),
        "nbytes": len(content),
    }
    manifest.write_bytes(msgspec.json.encode(raw))


def test_a_graph_that_cannot_be_built_leaves_the_earlier_engines(
    copied: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real builder, on a graph whose operator there is not."""
    before = {path: path.read_bytes() for path in (copied / "engines").rglob("*.*")}
    segment = ExportDirectory.open(copied).manifest.segments[0]
    model = onnx.load(copied / segment.file, load_external_data=False)
    model.graph.node[0].op_type = "NoSuchOperator"
    (copied / segment.file).write_bytes(model.SerializeToString())
    _update_hash(copied, segment.file)
    assert _build(copied, cache) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: engine {segment.name}: found ")
    assert "a graph that TensorRT for RTX builds" in error
    assert {path: path.read_bytes() for path in (copied / "engines").rglob("*.*")} == before


def test_the_profiles_of_a_batched_export_hold_all_widths(
    sample_exports: dict[str, Path], tmp_path: Path, cache: Path, builds: _Builds
) -> None:
    out = Path(shutil.copytree(sample_exports["batched"], tmp_path / "out"))
    assert _build(out, cache) == 0
    opened, engines = ExportDirectory.open(out), _engines(out).engines
    widths: dict[str, set[int]] = {}
    for one in opened.plan.statements:
        if hasattr(one, "callee"):
            widths.setdefault(one.callee, set()).add(one.width)
    assert max(map(len, widths.values())) > 1, "an export with one width only"
    for name, found in widths.items():
        ranges = engines[name].profile.values()
        assert {(one.min[0], one.max[0]) for one in ranges} <= {(min(found), max(found))}
        assert bool(ranges) == (len(found) > 1)
