"""Tries what docs/reference/manifest.md and docs/guide/embedding.md say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

import dipgo.engines
from dipgo.common.torch_noise import NoiseStream
from dipgo.run.pipeline import Pipeline
from tests.support.independent_noise import noise, twister_of
from tests.support.independent_runner import Names, Runner
from tests.support.sample_exports import NAMES

pytestmark = pytest.mark.slow

RUNNER = Path(__file__).parents[1] / "support" / "independent_runner.py"
ABSENT = ("dipgo", "torch", "diffusers", "transformers", "onnx")
WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))  # an import of None fails
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _inputs(runner: dipgo.engines.Runner) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(0)
    return {
        name: generator.integers(0, 10, kind.shape)
        if kind.dtype == "i64"
        else np.asarray(3.0 * generator.standard_normal(kind.shape), np.float32)
        for name, kind in runner.inputs.items()
    }


@pytest.mark.parametrize("mode", ["names", "arena"])
@pytest.mark.parametrize("name", NAMES)
def test_a_runner_from_the_page_gives_the_same_bytes(
    sample_exports: dict[str, Path], tmp_path: Path, name: str, mode: str
) -> None:
    """In a process of its own, where nothing but ONNX Runtime and numpy can be imported."""
    export, given, out = sample_exports[name], tmp_path / "inputs.npz", tmp_path / "out.npy"
    ours = dipgo.engines.load(export, threads=1)
    inputs = _inputs(ours)
    np.savez(given, **inputs)
    command = [sys.executable, "-I", "-c", WITHOUT, RUNNER, mode, export, given, out]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    expected = ours.run(inputs)["latents"]
    assert np.abs(expected).max() > 0.1
    assert np.load(out).tobytes() == expected.tobytes()


def test_nothing_absent_can_be_imported_there(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import dipgo")
    command = [sys.executable, "-I", "-c", WITHOUT, tmp_path / "script.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: import of dipgo halted" in result.stderr


def test_the_samples_show_all_of_the_format(sample_exports: dict[str, Path]) -> None:
    """Stacks of values and of rows, one lane and several, and rows that are not their position."""
    program = json.loads((sample_exports["batched"] / "plan.json").read_bytes())["program"]
    calls = [one for one in program["statements"] if one["op"] == "call"]
    stacks = [text for call in calls for text in call["operands"] if text.startswith("{")]
    kinds = {(text.startswith("{%"), " " in text) for text in stacks}
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
    assert any(table["rows"] != list(range(len(table["rows"]))) for table in program["tables"])


@pytest.mark.parametrize("name", NAMES)
def test_slots_begin_where_the_page_says(sample_exports: dict[str, Path], name: str) -> None:
    """At multiples of 64, but for lanes, which follow one another."""
    manifest = json.loads((sample_exports[name] / "plan.json").read_bytes())
    outputs = {one["name"]: len(one["outputs"]) for one in manifest["segments"]}
    slots = {one["value"]: one for one in manifest["program"]["slots"]}
    for statement in manifest["program"]["statements"]:
        names = statement.get("results") or [statement["result"]]
        width = len(names) // outputs.get(statement.get("segment"), 1)
        for index, (before, value) in enumerate(zip(["", *names], names, strict=False)):
            is_first = index % width == 0
            end = 0 if is_first else slots[before]["offset"] + slots[before]["nbytes"]
            offset = slots[value]["offset"]
            assert offset % 64 == 0 if is_first else offset == end


def test_prompt_and_picture_as_the_page_has_them(sample_exports: dict[str, Path]) -> None:
    export, texts = sample_exports["dense"], ["a red circle", "green " * 20]
    manifest = json.loads((export / "plan.json").read_bytes())
    (record,) = manifest["tokenizers"]
    tokenizer = Tokenizer.from_file(str(export / record["file"]))
    length, pad_id = record["length"], record["pad_id"]
    assert (record["padding_side"], record["mask"], record["lower"]) == ("right", "", False)
    tokenizer.enable_truncation(length)
    rows = [one.ids for one in tokenizer.encode_batch(["", "", *texts])]
    ids = np.array([row + [pad_id] * (length - len(row)) for row in rows], np.int64)
    names = {one["index"]: one["value"] for one in manifest["program"]["draws"]}
    assert len(names) == 3
    twister = twister_of(3)
    drawn = [noise(twister, 2 * 4 * 16 * 16).reshape(2, 4, 16, 16) for _ in range(max(names) + 1)]
    inputs = {
        "latents": drawn[0] * np.float32(manifest["sampler"]["init_noise_sigma"]),
        **{name: drawn[index] for index, name in names.items()},
        "encoder_hidden_states": _part(export, manifest, "text_encoder", ids),
        "guidance_scale": np.asarray(4.0, np.float32),
    }
    latents = Runner(export, Names).run(inputs)
    decoded = _part(export, manifest, "vae_decoder", latents)
    found = np.clip(decoded / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
    pipeline = Pipeline.from_export(export, threads=1)
    expected = pipeline(texts, seed=3, guidance_scale=4.0, output_type="np").images
    assert np.abs(found - expected).max() < 1e-5


def _part(export: Path, manifest: Any, name: str, array: NDArray[Any]) -> NDArray[Any]:
    part = manifest["parts"][name]
    session = onnxruntime.InferenceSession(export / part["file"])
    result: NDArray[Any] = session.run(None, {part["inputs"][0]["name"]: array})[0]
    return result


@pytest.mark.parametrize("count", [16, 64, 83])
def test_noise_as_the_page_has_it(count: int) -> None:
    twister, ours = twister_of(2**33 + 5), NoiseStream(2**33 + 5)
    for _ in range(3):
        assert np.abs(noise(twister, count) - ours.draw((count,))).max() < 2e-6


def test_a_run_can_be_stopped_and_the_runner_used_again(sample_exports: dict[str, Path]) -> None:
    runner = dipgo.engines.load(sample_exports["dense"], threads=1)
    inputs = _inputs(runner)
    expected = runner.run(inputs)["latents"]

    def stop(step: int) -> None:
        if step == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        runner.run(inputs, on_step=stop)
    assert runner.run(inputs)["latents"].tobytes() == expected.tobytes()
