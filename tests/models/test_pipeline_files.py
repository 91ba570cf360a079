"""Saved pipelines of strangers: data alone, or refused before diffusers reads them.

By the code of 3bfeb0e: pipes blocked; what else was refused depended on the version of
diffusers, of which older ones import the modules that an index names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipgo.common.errors import DipgoError
from dipgo.models.pipeline_files import INDEX, absent_parts, check_pipeline_files
from dipgo.models.source import load_source
from scripts.fuzz.mutants import damage_bytes, damage_json

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "model"

CODE = "raise SystemExit('code of the pipeline ran')"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A pipeline whose weights are links, as in the Hub's cache."""
    copied = Path(shutil.copytree(DEMO, tmp_path / "model", copy_function=os.symlink))
    (copied / INDEX).unlink()
    shutil.copyfile(DEMO / INDEX, copied / INDEX)
    return copied


def _index(**changes: Any) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        index = json.loads((model / INDEX).read_text())
        (model / INDEX).write_text(json.dumps({**index, **changes}))

    return change


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a module of its own": (_index(vae=["own", "Own"]), "vae of"),
    "a module in a part": (_index(unet=["unet", "Own"]), "unet of"),
    "a module of Python": (_index(vae=["antigravity", "X"]), "vae of"),
    "a module in a module": (_index(vae=["os.path", "join"]), "vae of"),
    "a pipeline in it": (_index(vae=["diffusers", "DiffusionPipeline"]), "vae of"),
    "any model": (_index(unet=["diffusers", "AutoModel"]), "unet of"),
    "any tokenizer": (_index(tokenizer=["transformers", "AutoTokenizer"]), "tokenizer of"),
    "a helper of pipelines": (_index(vae=["pipeline_utils", "ModelCard"]), "vae of"),
    "a path as a class": (_index(vae=["diffusers", "../own"]), "vae of"),
    "three words": (_index(vae=["diffusers", "AutoencoderKL", "own"]), "vae of"),
    "a class of its own": (_index(_class_name=["own", "Own"]), "the pipeline"),
    "a list as an index": (lambda model: (model / INDEX).write_text("[]"), "`array`"),
    "a part twice": (
        lambda model: (model / INDEX).write_text('{"vae": [null, null], "vae": ["own", "Own"]}'),
        "the key vae a second time",
    ),
    "a pipe": (lambda model: os.mkfifo(model / "unet" / "more.json"), "a pipe"),
    "a device": (lambda model: (model / "vae" / "a").symlink_to("/dev/zero"), "a device"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_data(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, found = REFUSED[name]
    for folder in (model, model / "unet", model.parent):
        for module in ("own", "unet"):
            (folder / f"{module}.py").write_text(CODE)
    monkeypatch.chdir(model.parent)
    monkeypatch.syspath_prepend(str(model.parent))
    change(model)
    with pytest.raises(DipgoError, match=rf": found {found}"):
        load_source(model)


EVERY_PART: dict[str, Any] = {
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "image_encoder": [None, None],
    "id2label": {"0": "a"},
    "force_upcast": True,
    "sizes": [1, 2],
    "nothing": [],
}


def test_what_pipelines_have(model: Path) -> None:
    _index(**EVERY_PART)(model)
    check_pipeline_files(model)
    assert "image_encoder" in absent_parts(model)


def test_any_index(model: Path) -> None:
    index = json.loads((model / INDEX).read_text())
    for mutant in (*damage_json(index, 300), *damage_bytes(json.dumps(index).encode(), 100)):
        (model / INDEX).write_bytes(mutant.data)
        try:
            check_pipeline_files(model)
        except DipgoError:
            continue
        read = json.loads(mutant.data)
        parts = [value for value in read.values() if isinstance(value, list)]
        names = {str(part[0]) for part in parts if any(isinstance(each, str) for each in part)}
        assert names <= {"diffusers", "transformers"}, mutant.name
