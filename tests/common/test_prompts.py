"""Files of prompts: a line ends at a newline alone, whatever else stands in it.

Failed at 3bfeb0e: for characters at which Python splits lines, for marks in the middle of a file,
and for NUL.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.files import read_prompts

MARK = "\ufeff"
WITHIN = ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\u00a0", "\t", "\x1b"]


def read(text: str, folder: Path) -> tuple[str, ...]:
    path = folder / "prompts.txt"
    path.write_bytes(text.encode())
    return read_prompts(path)


@pytest.mark.parametrize("character", WITHIN)
def test_no_other_character_ends_a_line(character: str, tmp_path: Path) -> None:
    text = f"a red{character}circle"
    assert read(f"{text}\n{text}", tmp_path) == (text, text)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_every_system(end: str, tmp_path: Path) -> None:
    assert read(f"a{end}{end} b {end}c", tmp_path) == ("a", "b", "c")


def test_marks_of_files_that_were_joined(tmp_path: Path) -> None:
    text = f"{MARK}a circle\n{MARK}a square\na{MARK}b\n"
    assert read(text, tmp_path) == ("a circle", "a square", f"a{MARK}b")


@pytest.mark.parametrize("text", ["a\nb\0c", "a\n".encode("utf-16-le").decode("latin-1")])
def test_nul(text: str, tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"prompts.txt, line \d: found a NUL character; "):
        read(text, tmp_path)
