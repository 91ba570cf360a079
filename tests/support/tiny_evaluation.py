"""A tiny model, SubNets, judges and pictures for the tests of `evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

import dipgo.evaluate.__main__
from dipgo.common.cli import run_command
from dipgo.evaluate.judges.classifier import (
    Classifier,
    save_classifier,
)
from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from tests.support.tiny_pipeline import (
    SMALLER_SIZE,
    WIDTH,
    save_smaller_pipeline,
    tiny_text_encoder,
    tiny_tokenizer,
)

BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")

GATES = {
    "pruned": ("11111", "00001", "11111"),
    "every": ("11111", "11111", "11111"),
    "fewer": ("11111", "11111"),
}

TIMESTEPS = {3: (667.0, 334.0, 1.0), 2: (501.0, 1.0)}

PROMPTS = ("a red circle", "a blue circle", "a red square")

HEADS = {"colour": ("red", "blue"), "shape": ("circle", "square")}

SIZE = SMALLER_SIZE

PAIRS, BATCH, SEED, GUIDANCE = 4, 3, 7, 5.0
"""The fourth pair is the first prompt again, and fills a batch with nothing."""


def evaluation_subnet(name: str, **changes: Any) -> SubNet:
    """Returns the SubNet of `GATES[name]`, with fields replaced."""
    gates = np.array([[gate == "1" for gate in row] for row in GATES[name]])
    steps = len(gates)
    subnet = SubNet(
        steps,
        TIMESTEPS[steps],
        BLOCKS,
        gates,
        ("output",) * len(BLOCKS),
        ModelRef("UNet2DConditionModel"),
        SchedulerRef("DDIMScheduler"),
    )
    return replace(subnet, **changes)


def write_inputs(tiny_pipeline: Path, folder: Path) -> Path:
    """Fills the folder with all that the command reads."""
    for name in GATES:
        evaluation_subnet(name).save(folder / f"{name}.json")
    (folder / "prompts.txt").write_text("\n\n".join(PROMPTS) + "\n")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        save_classifier(Classifier(HEADS, (8, 8, 16), SIZE), folder / "classifier")
        _save_clip(folder / "clip")
    (folder / "reference").mkdir()
    for index, picture in enumerate(random_pictures(5, seed=1)):
        Image.fromarray(picture).save(folder / "reference" / f"{index}.png")
    save_smaller_pipeline(tiny_pipeline, folder / "model")
    return folder


def _save_clip(folder: Path) -> None:
    text = tiny_text_encoder().config.to_dict()
    vision = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    tokenizer = tiny_tokenizer(folder.with_name("clip-vocabulary"))
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)


def random_pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise u8[count, 32, 32, 3]."""
    noise = np.random.default_rng(seed).normal(size=(count, SIZE, SIZE, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    return ((smooth / np.abs(smooth).max() / 2 + 0.5) * 255).round().astype(np.uint8)


def command_words(inputs: Path, out: Path, **changes: Any) -> list[str]:
    """The command's arguments; None for an option that is left out."""
    options: dict[str, Any] = {
        "model": inputs / "model",
        "subnets": [inputs / "pruned.json", inputs / "every.json"],
        "prompts": inputs / "prompts.txt",
        "pairs": PAIRS,
        "batch": BATCH,
        "seed": SEED,
        "guidance_scale": GUIDANCE,
        "classifier": inputs / "classifier",
        "reference": inputs / "reference",
        "threads": 1,
        "out": out,
    }
    words: list[str] = []
    for name, value in (options | changes).items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def check_refused(
    arguments: list[str],
    fragments: tuple[str, ...],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, one line with the fragments in order, and nothing written."""
    capsys.readouterr()
    before = sorted(folder.rglob("*"))
    assert run_command(dipgo.evaluate.__main__.main, arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    *_, message = printed.err.splitlines()
    assert message.startswith("error: ")
    rest = message
    for fragment in fragments:
        assert fragment in rest, f"{fragment!r} is not in its place in {message!r}"
        rest = rest[rest.index(fragment) + len(fragment) :]
    assert sorted(folder.rglob("*")) == before
