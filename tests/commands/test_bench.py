"""What `python -m dipgo.bench` prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import dipgo.bench
import dipgo.run.__main__
from dipgo.common.cli import run_command
from dipgo.common.hashes import sha256_of
from dipgo.engines import load
from dipgo.engines.timing import random_inputs
from dipgo.export.lower.weights import tensor_offsets
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE
from tests.support.refusals import PROMPT, Refused, edit_manifest

BENCHES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "warmup": (["--warmup", "-1"], ("--warmup", "'-1'", "at least 0", "--help")),
    "repeats": (["--repeats", "0"], ("--repeats", "'0'", "at least 1", "--help")),
    "threads": (["--threads", "x"], ("--threads", "'x'", "at least 0", "--help")),
    "no folder": (["--json", "{tmp}/no/x.json"], ("no/x.json", "no such folder", "exists", "make")),
    "against nothing": (["--against", "{tmp}/no"], (MANIFEST_FILE, "No such file", "the manifest")),
    "against dense": (["--against", "dense"], ("--against dense", "pipeline", "--model M", "say")),
    "against another's twin": (
        ["--against", "dense", "--model", "{tiny_dit}"],
        ("--against dense", "DiTTransformer2DModel", "UNet2DConditionModel", "name the model"),
    ),
}


@pytest.mark.parametrize("name", BENCHES)
def test_arguments_of_bench(
    name: str, exported: Path, tiny_dit: Path, tmp_path: Path, refused: Refused
) -> None:
    options, fragments = BENCHES[name]
    given = [option.format(tmp=tmp_path, tiny_dit=tiny_dit) for option in options]
    refused(dipgo.bench.main, [exported, *given], *fragments)


def test_exports_that_do_other_work_are_not_compared(
    exported: Path, sample_exports: dict[str, Path], refused: Refused
) -> None:
    """The same model, but another batch, sampler and number of steps."""
    found = (
        "batch 2 (not 1)",
        "scheduler EulerAncestralDiscreteScheduler (not EulerDiscreteScheduler)",
    )
    for fragment in (*found, "steps 4 (not 3)"):
        arguments = [exported, "--against", sample_exports["dense"]]
        refused(dipgo.bench.main, arguments, "--against", fragment, "the same model", "export")


@pytest.mark.slow
def test_speedups_are_medians_of_paired_ratios(
    exported: Path, pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    arguments = [exported, "--against", "dense", "--model", pipeline, "--json", path]
    assert run_command(dipgo.bench.main, list(map(str, arguments))) == 0
    report = json.loads(path.read_text())
    turns = zip(report["against"]["runs"], report["this"]["runs"], strict=True)
    ratios = sorted(dense / subnet for dense, subnet in turns)
    speedup = report["speedup"]
    assert speedup["turns"] == len(ratios) == 6
    assert speedup["measured"] == pytest.approx(median(ratios))
    assert speedup["measured_interval"] == pytest.approx([ratios[0], ratios[-1]])
    assert speedup["retention"] == pytest.approx(speedup["measured"] / speedup["ideal"])
    assert speedup["confidence"] == 1 - 2 / 2**6
    printed = capsys.readouterr().out
    low, high = speedup["measured_interval"]
    assert f"measured {speedup['measured']:.3f}× [{low:.3f}, {high:.3f}]" in printed
    assert "medians of 6 turns, 97 % intervals" in printed


def test_runs_that_yield_no_numbers_are_neither_timed_nor_drawn(
    damaged: Path, tmp_path: Path, refused: Refused
) -> None:
    """One weight of the graph is NaN. A runner itself keeps what its engines yield."""
    weights = damaged / WEIGHTS_FILE
    start, _ = tensor_offsets(weights)["denoiser.conv_in.bias"]
    with weights.open("r+b") as file:
        file.seek(start)
        file.write(np.float32("nan").tobytes())
    digest = sha256_of(weights)
    edit_manifest(lambda data: data["files"][WEIGHTS_FILE].update(sha256=digest))(damaged)
    no_numbers = ("latents", "infinite or NaN", "finite numbers", "lower the guidance scale")
    refused(dipgo.bench.main, [damaged, "--repeats", "1"], *no_numbers)
    image = ["--image", tmp_path / "out.png", "--latents", tmp_path / "out.npy"]
    refused(dipgo.run.__main__.main, [damaged, *PROMPT, *image], *no_numbers)
    runner = load(damaged)
    assert np.isnan(runner.run(random_inputs(runner))["latents"]).any()
