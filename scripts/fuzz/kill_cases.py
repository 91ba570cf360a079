"""The commands that `scripts.fuzz.kill` kills: their arguments, and whether a result is whole."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from dipgo.common.errors import DipgoError
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export import export
from dipgo.ir.subnet.subnet import SubNet
from tests.support.tiny_pipeline import save_smaller_pipeline, save_tiny_pipeline

TARGET = "tensorrt-rtx"

INPUTS, OTHER, EXPORTED = "inputs", "other", "exported"

SUBNET = {
    "format": "dipgo.subnet",
    "version": 1,
    "scheduler": {"class": "DDIMScheduler"},
    "num_inference_steps": 3,
    "timesteps": [667, 334, 1],
    "blocks": ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"],
    "gates": ["11111", "00001", "11111"],
}


@dataclass(frozen=True)
class Case:
    """A command, and what there is of its result.

    Attributes:
        words: The command's arguments, from the inputs' folder and the trial's.
        result: The path of the result in the trial's folder.
        is_whole: Whether the result, which is there, is whole.
        prepare: Makes in the trial's folder what the command changes.
        resumes: Whether the command goes on where a killed one was, to the same bytes.
        keeps: Whether something old can lie at the result's path.
    """

    words: Callable[[Path, Path], list[object]]
    result: str
    is_whole: Callable[[Path], bool]
    prepare: Callable[[Path, Path], None] = lambda inputs, folder: None
    resumes: bool = False
    keeps: bool = True


def write_all_inputs(folder: Path) -> None:
    """Writes a model of toy size, the same with other weights, SubNets, prompts and an export."""
    pipeline = save_tiny_pipeline(folder / "pipeline")
    inputs = folder / INPUTS
    inputs.mkdir()
    save_smaller_pipeline(pipeline, inputs / "model")
    (inputs / "prompts.txt").write_text("a red circle\na blue square\n")
    (inputs / "pruned.json").write_text(json.dumps(SUBNET))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        other = DiffusionPipeline.from_pretrained(inputs / "model", safety_checker=None)
        other.unet = type(other.unet).from_config(other.unet.config)
        other.save_pretrained(folder / OTHER)
    export(inputs / "model", inputs / "pruned.json", folder / EXPORTED)


def _export(inputs: Path, folder: Path) -> list[object]:
    model, subnet = inputs / INPUTS / "model", inputs / INPUTS / "pruned.json"
    given: list[object] = ["--model", model, "--subnet", subnet]
    return ["export", *given, "--out", folder / "out", "--force"]


def _refit(inputs: Path, folder: Path) -> list[object]:
    given: list[object] = [inputs / EXPORTED, "--model", inputs / OTHER]
    return ["refit", *given, "--out", folder / "out", "--force"]


def _build(inputs: Path, folder: Path) -> list[object]:
    given: list[object] = [folder / "export", "--target", TARGET, "--compute-capability", "8.6"]
    return ["build", *given, "--build-cache", folder / "cache", "--jobs", "2"]


def _search(inputs: Path, folder: Path) -> list[object]:
    model, prompts = inputs / INPUTS / "model", inputs / INPUTS / "prompts.txt"
    numbers = "--steps 3 --scheduler ddim --ratio 0.666 --batch 1 --pool 2 --exchanges 20"
    more = "--iterations 4 --exchange-examples 1 --reuse-filter 0 --reuse-iterations 8 --held-out 0"
    files: list[object] = ["--checkpoint", folder / "state", "--log", folder / "log.csv"]
    given: list[object] = ["--model", model, "--prompts", prompts, *numbers.split(), *more.split()]
    return ["search", *given, *files, "--out", folder / "subnet.json"]


def _evaluate(inputs: Path, folder: Path) -> list[object]:
    model, prompts = inputs / INPUTS / "model", inputs / INPUTS / "prompts.txt"
    given: list[object] = ["--model", model, "--prompts", prompts]
    numbers = "--pairs 2 --batch 2 --threads 1 --no-time --force"
    subnets = inputs / INPUTS / "pruned.json"
    return ["evaluate", *given, "--subnets", subnets, *numbers.split(), "--out", folder / "out"]


def _bench(inputs: Path, folder: Path) -> list[object]:
    against: list[object] = ["--against", "dense", "--model", inputs / INPUTS / "model"]
    numbers = "--repeats 2 --warmup 0 --threads 1"
    words: list[object] = ["bench", inputs / EXPORTED, *against, *numbers.split()]
    return [*words, "--json", folder / "times.json"]


def _copy_export(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / EXPORTED, folder / "export")


def _is_whole_export(out: Path) -> bool:
    return _is_read(lambda: ExportDirectory.open(out))


def _are_whole_engines(out: Path) -> bool:
    def read() -> None:
        export_dir = ExportDirectory.open(out.parents[1])
        names = [*export_dir.engine_files, *export_dir.manifest.parts]
        engines = EngineDirectory.open(export_dir, TARGET, names, "")
        for name in names:
            engines.read(name)

    return _is_read(read)


def _is_whole_evaluation(out: Path) -> bool:
    def read() -> None:
        for path in (*out.glob("*.json"), *out.glob("cache/*.json")):
            json.loads(path.read_text())
        for path in out.glob("cache/*.npz"):
            with np.load(path) as arrays:
                dict(arrays)
        for path in out.glob("cache/export-*"):
            ExportDirectory.open(path)

    return _is_read(read)


def _is_read(read: Callable[[], object]) -> bool:
    try:
        read()
    except (DipgoError, OSError, ValueError, zipfile.BadZipFile):
        return False
    return True


CASES = {
    "export": Case(_export, "out", _is_whole_export),
    "search": Case(
        _search,
        "subnet.json",
        lambda path: _is_read(lambda: SubNet.load(path)),
        resumes=True,
        keeps=False,
    ),
    "refit": Case(_refit, "out", _is_whole_export),
    "evaluate": Case(_evaluate, "out", _is_whole_evaluation, keeps=False),
    "bench": Case(
        _bench, "times.json", lambda path: _is_read(lambda: json.loads(path.read_text()))
    ),
    "build": Case(_build, f"export/engines/{TARGET}", _are_whole_engines, _copy_export),
}
"""By the command's name, the quickest first."""


def possible_cases() -> list[str]:
    """Returns the commands that can be run here: `build` needs TensorRT for RTX, and no GPU."""
    can_build = find_spec("tensorrt_rtx") is not None and find_spec("polygraphy") is not None
    return [name for name in CASES if name != "build" or can_build]
