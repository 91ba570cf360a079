"""Names, sizes and counts of a manifest: none leads out of the folder or to endless work.

Failed at 3bfeb0e: a segment could have any name, which `build` made a path of; a batch of 10**40
and a tokenizer of 2**40 tokens were loaded; an arena of 2**46 bytes ended in a MemoryError.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.manifest.names import name_problems
from dipgo.ir.manifest.records import MANIFEST_FILE
from dipgo.ir.types import LARGEST, TensorType

NAMES = (
    *("../outside", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:a", "a\0b", "a\n", "a b"),
    *("\x1b[2J", "x" * 300, "-rf", ".hidden", "a:b", "／", "nul", "CON.onnx", "com1", "a."),
)


@pytest.fixture
def copied(sample_exports: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(sample_exports["dense"], tmp_path / "out")


def edited(out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = out / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return out


def refusal(out: Path) -> str:
    with pytest.raises(DipgoError) as caught:
        read_manifest(out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def renamed(manifest: dict[str, Any], old: str, new: str) -> None:
    text = json.dumps(manifest).replace(json.dumps(old), json.dumps(new))
    manifest.clear()
    manifest.update(json.loads(text))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["segment", "part", "file", "segment's file", "tokenizer"])
def test_a_name_that_is_no_file_name_is_refused(copied: Path, place: str, name: str) -> None:
    """Wherever it stands, and consistently: all that names it has the new name."""

    def change(manifest: dict[str, Any]) -> None:
        old = {
            "segment": manifest["segments"][0]["name"],
            "part": next(iter(manifest["parts"])),
            "file": "weights.safetensors",
            "segment's file": manifest["segments"][0]["file"],
            "tokenizer": manifest["tokenizers"][0]["file"],
        }[place]
        renamed(manifest, old, name)

    refusal(edited(copied, change))


@pytest.mark.parametrize("name", ["SEG0", "Combine", "TEXT_ENCODER"])
def test_names_that_differ_in_case_alone_are_refused(copied: Path, name: str) -> None:
    """On some file systems they are one."""

    def change(manifest: dict[str, Any]) -> None:
        part = manifest["parts"].pop("vae_decoder")
        manifest["parts"][name] = part

    assert "case" in refusal(edited(copied, change))


def test_a_size_is_there_once(copied: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["sizes"] = ["64x128", "64x128"]

    assert "a size twice" in refusal(edited(copied, change))


def test_problems_of_names() -> None:
    assert not [*name_problems(["a.onnx", "b", "controls", "console.log", "auxiliary"])]
    for names in (["a", "A"], ["nul.txt"], ["LPT9"], ["ß", "ss"], ["a."]):
        assert [*name_problems(names)]


NUMBERS = (2**31, 2**53 + 1, 2**62 + 1, 2**64, 10**40, -1)


def numbers_in(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of whole numbers, of a list's entries the first one's."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from numbers_in(value, (*place, key))
    elif isinstance(document, list):
        for index, value in enumerate(document[:1]):
            yield from numbers_in(value, (*place, index))
    elif isinstance(document, int) and not isinstance(document, bool):
        yield place


def test_every_number_has_bounds(sample_exports: dict[str, Path], tmp_path: Path) -> None:
    """A number of any size is refused in one line, or changes nothing that takes time or memory.

    Numbers of macs and parameters are only shown; the scheduler's options are its own.
    """
    out = shutil.copytree(sample_exports["dense"], tmp_path / "out")
    path = out / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    tried = 0
    for place in numbers_in(manifest):
        *way, last = place
        for number in NUMBERS:
            damaged = json.loads(json.dumps(manifest))
            holder = damaged
            for key in way:
                holder = holder[key]
            holder[last] = number
            path.write_text(json.dumps(damaged))
            tried += 1
            assert "\n" not in _error_of_load(out), place
    assert tried > 100


def _error_of_load(out: Path) -> str:
    try:
        load(out, threads=1)
    except DipgoError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "text",
    [
        f"f32[{10**14},{10**14}]",
        f"u8[{LARGEST}]",
        "f32[1]\n",
        "f32[1,,2]",
        "f32[-1]",
        "f32[+1]",
        "f32[1_0]",
        "f9[]",
    ],
)
def test_types_have_bounds(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # its words are those of the caller's
        TensorType.parse(text)


def test_what_memory_does_not_hold_is_refused_before_it_is_made(copied: Path) -> None:
    """The arena is as large as the slots say, and slots lie where they say."""

    def change(manifest: dict[str, Any]) -> None:
        program = manifest["program"]
        last = max(program["slots"], key=lambda slot: slot["offset"])
        last["offset"] += 2**46
        program["arena_nbytes"] = last["offset"] + last["nbytes"]

    with pytest.raises(DipgoError, match="room for all of them"):
        load(edited(copied, change))


def test_a_file_of_tables_is_no_larger_than_they_are(copied: Path) -> None:
    """A file may be all holes, and is read whole."""
    with (copied / "constants.safetensors").open("r+b") as file:
        file.truncate(2**34)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["constants.safetensors"]["nbytes"] = 2**34

    with pytest.raises(DipgoError, match=r"constants.safetensors: found a file of 16384"):
        load(edited(copied, change), check_hashes=False)


def test_a_table_has_a_row_once(copied: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        rows = manifest["program"]["tables"][0]["rows"]
        rows[-1] = rows[0]

    assert "a row twice" in refusal(edited(copied, change))
