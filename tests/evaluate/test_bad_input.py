"""Arguments that `python -m dipgo.evaluate` refuses."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
)
from PIL import Image

from dipgo.common.cli import run_command
from dipgo.evaluate.__main__ import main
from dipgo.evaluate.judges.classifier import (
    Classifier,
    save_classifier,
)
from dipgo.ir.subnet.subnet import ModelRef
from tests.support.tiny_evaluation import (
    BLOCKS,
    HEADS,
    SIZE,
    check_refused,
    command_words,
    evaluation_subnet,
)
from tests.support.zoo import ZOO

# What is refused: the change of arguments, and the fragments of where, found and expected.
Change = Callable[[Path, Path], dict[str, Any]]

REFUSED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no prompts": (
        lambda inputs, tmp: {"prompts": _text(tmp / "no.txt", "\n \n")},
        ("no.txt", "no prompts", "one prompt a line"),
    ),
    "prompts that are not there": (
        lambda inputs, tmp: {"prompts": tmp / "no.txt"},
        ("no.txt", "nothing that can be read", "one prompt a line"),
    ),
    "prompts that are not text": (
        lambda inputs, tmp: {"prompts": inputs / "reference" / "0.png"},
        ("0.png", "not UTF-8", "one prompt a line"),
    ),
    "one pair": (lambda inputs, tmp: {"pairs": 1}, ("--pairs", "1", "at least 2")),
    "a negative seed": (lambda inputs, tmp: {"seed": -1}, ("--seed", "-1", "from 0")),
    "no classifier": (
        lambda inputs, tmp: {"classifier": tmp / "no"},
        ("config.json", "nothing that can be read", "a classifier's folder"),
    ),
    "a classifier of other weights": (
        lambda inputs, tmp: {"classifier": _other_weights(tmp / "classifier")},
        ("classifier", "weights that do not fit", "a classifier's folder"),
    ),
    "a classifier of another size": (
        lambda inputs, tmp: {"classifier": _classifier(tmp / "classifier", (8,), 64)},
        ("--classifier", "64 x 64", "32 x 32, as the model draws"),
    ),
    "a value that no head knows": (
        lambda inputs, tmp: {"prompts": _text(tmp / "p.txt", "a red circle\na green circle")},
        ("prompt 'a green circle', head colour", "none of its values", "one of red, blue"),
    ),
    "two values": (
        lambda inputs, tmp: {"prompts": _text(tmp / "p.txt", "a red or blue circle")},
        ("'a red or blue circle', head colour", "red and blue", "exactly one"),
    ),
    "no reference": (
        lambda inputs, tmp: {"reference": tmp / "no"},
        ("--reference", "no such folder", "at least 2 PNG files"),
    ),
    "a reference without pictures": (
        lambda inputs, tmp: {"reference": inputs / "clip"},
        ("--reference", "0 PNG files", "at least 2 PNG files"),
    ),
    "a reference of another size": (
        lambda inputs, tmp: {"reference": _pngs(tmp / "reference", 64)},
        ("0.png", "64 x 64", "32 x 32, as the model draws"),
    ),
    "a reference that nothing reads": (
        lambda inputs, tmp: {"classifier": None},
        ("--reference", "nothing that compares", "--classifier DIR or --fid"),
    ),
    "no CLIP model": (
        lambda inputs, tmp: {"clip_model": inputs / "classifier"},
        ("--clip-model", "no CLIP model", "CLIPProcessor"),
    ),
    "a SubNet of another model": (
        lambda inputs, tmp: {"subnets": _saved(tmp, model=ModelRef("DiTTransformer2DModel"))},
        ("other: SubNet, model.class", "DiTTransformer2DModel", "UNet2DConditionModel"),
    ),
    "a SubNet of another scheduler": (
        lambda inputs, tmp: {"subnets": _saved(tmp, timesteps=(700.0, 300.0, 0.0))},
        ("other: SubNet, timesteps", "from 700 to 0", "from 667 to 1"),
    ),
    "a SubNet of other blocks": (
        lambda inputs, tmp: {"subnets": _saved(tmp, blocks=(*BLOCKS[:4], "up_blocks.9"))},
        ("other: SubNet, block up_blocks.9", "no module", "the path of a module"),
    ),
    "no SubNet": (
        lambda inputs, tmp: {"subnets": [tmp / "no.json"]},
        ("no.json", "nothing that can be read", "a SubNet file"),
    ),
    "a SubNet twice": (
        lambda inputs, tmp: {"subnets": [inputs / "pruned.json"] * 2},
        ("--subnets", "one file named twice", "once"),
    ),
    "a scheduler that there is not": (
        lambda inputs, tmp: {"scheduler": "fast"},
        ("dense: scheduler fast", "a name", "one of ddim"),
    ),
    "too many steps": (
        lambda inputs, tmp: {"steps": 2000},
        ("dense: --steps", "2000", "at most 1000"),
    ),
    "a model that draws no pictures of prompts": (
        lambda inputs, tmp: {"model": _dit(tmp / "dit")},
        ("model dit", "no text_encoder", "a text-to-image pipeline"),
    ),
    "a file in the place of DIR": (
        lambda inputs, tmp: {"out": _text(tmp / "file", "")},
        ("file", "not a folder", "a folder"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(
    name: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, fragments = REFUSED[name]
    changes = change(inputs, tmp_path)
    arguments = command_words(inputs, **({"out": tmp_path / "out"} | changes))
    check_refused(arguments, fragments, tmp_path, capsys)


@pytest.mark.rare
def test_pictures_that_overflow_are_not_compared(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pictures they are all black, and a SubNet's equal to dense's; the export stays."""
    arguments = command_words(inputs, tmp_path / "out", guidance_scale=3e38)
    assert run_command(main, arguments) == 2
    *_, message = capsys.readouterr().err.splitlines()
    assert re.match(r"error: latents: found \d+ of \d+ numbers that are infinite or NaN", message)
    assert not list((tmp_path / "out").glob("report*"))
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_fid_needs_a_reference(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command_words(inputs, tmp_path / "out", reference=None), "--fid"]
    fragments = ("--fid", "no reference pictures", "--reference DIR")
    check_refused(arguments, fragments, tmp_path, capsys)


@pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is there"
)
def test_fid_without_its_package(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command_words(inputs, tmp_path / "out"), "--fid"]
    fragments = ("--fid", "no package torch-fidelity", "the Inception network", "pip install")
    check_refused(arguments, fragments, tmp_path, capsys)


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _saved(folder: Path, **changes: Any) -> list[Path]:
    evaluation_subnet("pruned", **changes).save(folder / "other.json")
    return [folder / "other.json"]


def _classifier(folder: Path, channels: tuple[int, ...], size: int) -> Path:
    save_classifier(Classifier(HEADS, channels, size), folder)
    return folder


def _other_weights(folder: Path) -> Path:
    _classifier(folder, (8,), SIZE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"channels": [16]}))
    return folder


def _pngs(folder: Path, size: int) -> Path:
    folder.mkdir()
    for index in range(2):
        Image.new("RGB", (size, size)).save(folder / f"{index}.png")
    return folder


def _dit(folder: Path) -> Path:
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    DiTPipeline(ZOO["dit"].build(), vae, DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder
