"""Text that is no Unicode, and byte order marks, wherever text comes in."""

from __future__ import annotations

import os
import subprocess
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.files import (
    check_destination,
    check_file_destination,
    check_folder_destination,
    read_prompts,
)
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline

LONE = "a\udcffb"
"""As Python holds the bytes `a\\xffb` of an argument or a file's name."""
ENCODED = ("utf-8", "utf-8-sig")
OTHERS = ("utf-16", "utf-16-be", "latin-1")
TEXT = "ein Käfer\n\n日本\n"


@pytest.mark.parametrize("encoding", [*ENCODED, *OTHERS])
def test_files_of_prompts(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(TEXT.encode(encoding, "replace"))
    if encoding in OTHERS:
        with pytest.raises(DipgoError, match=r"prompts\.txt: found bytes that are not UTF-8"):
            read_prompts(path)
    else:
        assert read_prompts(path) == ("ein Käfer", "日本")


@pytest.mark.parametrize("encoding", [*ENCODED, *OTHERS[:2]])
def test_json_files(encoding: str, tmp_path: Path) -> None:
    subnet = SubNet.dense((2, 1), ("mid_block",), num_inference_steps=2)
    subnet.save(tmp_path / "plain.json")
    path = tmp_path / "other.json"
    path.write_bytes((tmp_path / "plain.json").read_text().encode(encoding))
    if encoding in OTHERS:
        with pytest.raises(DipgoError, match=r"other\.json: found .*; expected .* in UTF-8; "):
            SubNet.load(path)
    else:
        assert SubNet.load(path).blocks == subnet.blocks


def test_a_manifest_with_a_mark(sample_exports: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(
        BOM_UTF8 + (sample_exports["dense"] / "plan.json").read_bytes()
    )
    assert read_manifest(tmp_path) == read_manifest(sample_exports["dense"])


CALLS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": LONE},
    "prompt among others": {"prompt": ["a", LONE]},
    "negative_prompt": {"prompt": "a", "negative_prompt": LONE},
    "negative_prompt among others": {"prompt": ["a", "b"], "negative_prompt": ["", LONE]},
    "negative_prompt that is none": {"prompt": ["a", "b"], "negative_prompt": ["", 3]},
}


@pytest.mark.parametrize("name", CALLS)
def test_prompts(name: str, pipeline: Pipeline) -> None:
    where = name.split()[0]
    with pytest.raises(DipgoError, match=rf"^{where} .*: found (bytes that are|what is no te)"):
        pipeline(**CALLS[name])


@pytest.fixture(scope="module")
def pipeline(sample_exports: dict[str, Path]) -> Pipeline:
    return Pipeline.from_export(sample_exports["dense"], threads=1)


def test_names_of_what_is_written(tmp_path: Path) -> None:
    message = "found a name with bytes that are not UTF-8; expected a name in UTF-8"
    with pytest.raises(DipgoError, match=message):
        check_destination(tmp_path / LONE, force=False, foreign=lambda path: "")
    with pytest.raises(DipgoError, match=message):
        check_folder_destination(tmp_path / LONE / "within")
    with pytest.raises(DipgoError, match=message):
        check_file_destination(tmp_path / f"{LONE}.json")


def test_names_of_what_is_read(tiny_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / LONE).mkdir()
    for path in (tmp_path / LONE, tmp_path / f"{LONE}.safetensors"):
        with pytest.raises(DipgoError, match=r"^(model|loras) .*: found "):
            load_source(path if path.suffix == "" else tiny_pipeline, [path] if path.suffix else [])


def test_a_command_says_so_in_one_line(sample_exports: dict[str, Path], tmp_path: Path) -> None:
    export = os.fsencode(sample_exports["dense"])
    image = os.fsencode(tmp_path / "x.png")
    command = [sys.executable, "-m", "dipgo.run", export, "--image", image, "--prompt", b"a\xffb"]
    ended = subprocess.run(command, capture_output=True, check=False, env={**os.environ})
    assert ended.returncode == 2
    assert ended.stderr.decode().strip().splitlines()[-1].startswith("error: prompt ")
    assert not (tmp_path / "x.png").exists()
