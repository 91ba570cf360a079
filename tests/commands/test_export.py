"""Options and models that `python -m dipgo.export` refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipgo.export import __main__ as export_command
from tests.support.refusals import (
    Refused,
)

EXPORTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no subnet": (["--subnet", "no.json"], ("no.json", "No such file", "a SubNet file", "check")),
    "no steps": (["--subnet", "dense"], ("--subnet dense", "no number", "--steps N", "say how")),
    "steps 0": (["--steps", "0"], ("--steps", "0", "at least 1", "correct it")),
    "steps in words": (["--steps", "few"], ("--steps", "'few'", "a whole number", "--help")),
    "steps, too many": (["--steps", "1001"], ("--steps", "1001", "at most 1000", "fewer")),
    "batch": (["--batch", "-1"], ("--batch", "-1", "at least 1", "correct it")),
    "height, negative": (["--height", "-64"], ("--height", "-64", "at least 0", "correct it")),
    "height, odd": (["--height", "63"], ("--height", "63", "a multiple of 4", "use 64")),
    "width": (["--width", "1"], ("--width", "1", "a multiple of 4", "use 4")),
    "target": (["--target", "tpu"], ("--target", "tpu", "onnxruntime", "leave --target out")),
    "precision": (["--precision", "fp8"], ("--precision", "fp8", "fp32, fp16, bf16", "correct it")),
    "unknown option": (
        ["--stepz", "3"],
        ("--stepz", "an option", "in full", "did you mean --steps?"),
    ),
    "no value": (["--steps"], ("--steps", "", "one argument", "python -m dipgo.export --help")),
    "blocks": (["--blocks", "mid.*"], ("'mid.*'", "no module", "mid_block", "correct the pattern")),
    "blocks that overlap": (
        ["--blocks", "up_blocks.*", "up_blocks.1.resnets.0"],
        ("block up_blocks.1.resnets.0", "inside the block up_blocks.1", "overlap", "leave one"),
    ),
    "scheduler": (["--scheduler", "fast"], ("scheduler fast", "a name", "one of ddim", "correct")),
    "eta beyond 1": (
        ["--scheduler", "ddim", "--eta", "1.5"],
        ("--eta", "1.5", "a number from 0 to 1", "1 draws as much noise"),
    ),
    "eta of a scheduler that has none": (
        ["--scheduler", "euler", "--eta", "0.5"],
        ("--eta", "EulerDiscreteScheduler", "steps take an eta", "leave --eta out"),
    ),
    "architecture": (
        ["--model", "arch:sd9"],
        ("arch:sd9", "not known", "arch:sd15", "did you mean arch:s"),
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_arguments_of_export(name: str, pipeline: Path, tmp_path: Path, refused: Refused) -> None:
    options, fragments = EXPORTS[name]
    steps = [] if name == "no steps" else ["--steps", "3"]
    given = ["--model", pipeline, "--subnet", "dense", *steps, "--out", tmp_path / "out", *options]
    refused(export_command.main, given, *fragments)


def test_arguments_that_are_missing(refused: Refused) -> None:
    message = ("dipgo.export", "no --model, --subnet, --out", "every required argument", "--help")
    refused(export_command.main, [], *message)


def _thresholding(config: dict[str, Any]) -> None:
    config["thresholding"] = True


def _clip_sample(config: dict[str, Any]) -> None:
    del config["clip_sample"]  # then DDIM's default is true


@pytest.mark.parametrize(("change", "name"), [(_thresholding, "dpm++"), (_clip_sample, "ddim")])
def test_a_scheduler_that_is_not_linear(
    change: Callable[[dict[str, Any]], None],
    name: str,
    pipeline: Path,
    tmp_path: Path,
    refused: Refused,
) -> None:
    model = Path(shutil.copytree(pipeline, tmp_path / "model"))
    path = model / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    option = change.__name__.removeprefix("_")
    given = ["--model", model, "--subnet", "dense", "--steps", "3", "--scheduler", name]
    message = ("scheduler D", f"{option}=True", "a linear scheduler", f"set {option} to false")
    refused(export_command.main, [*given, "--out", tmp_path / "out"], *message)


def _without(part: str) -> Callable[[Path], object]:
    return lambda model: shutil.rmtree(model / part)


def _cut_weights(model: Path) -> None:
    os.truncate(model / "unet" / "diffusion_pytorch_model.safetensors", 5000)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no pipeline": (lambda model: (model / "model_index.json").unlink(), "no model_index.json"),
    "an empty index": (lambda model: (model / "model_index.json").write_text("{}"), "_class_name"),
    "no unet": (_without("unet"), ""),
    "truncated weights": (_cut_weights, "diffusion_pytorch_model.safetensors"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_no_pipeline(
    name: str, pipeline: Path, tmp_path: Path, refused: Refused
) -> None:
    damage, found = MODELS[name]
    model = Path(shutil.copytree(pipeline, tmp_path / "model"))
    damage(model)
    arguments = ["--model", model, "--subnet", "dense", "--steps", "3", "--out", tmp_path / "out"]
    refused(export_command.main, arguments, str(model), found, "save_pretrained", "its path")


def test_a_path_that_is_not_there(tmp_path: Path, refused: Refused) -> None:
    model = tmp_path / "no" / "such" / "model"
    arguments = ["--model", model, "--subnet", "dense", "--steps", "3", "--out", tmp_path / "out"]
    refused(export_command.main, arguments, str(model), "no directory of that name", "Hub id")


def test_the_hub_without_a_network(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model_info(name: str, timeout: float) -> None:
        assert timeout <= 10
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.model_info", model_info)
    arguments = ["--model", "nobody/nothing", "--subnet", "dense", "--steps", "3"]
    refused(
        export_command.main,
        [*arguments, "--out", tmp_path / "out"],
        *("nobody/nothing", "nor a model on the Hub (ConnectionError)", "a directory", "its path"),
    )
