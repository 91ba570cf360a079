"""Reads a file of prompts, one a line."""

from __future__ import annotations

from pathlib import Path

from dipgo.errors import DipgoError
from dipgo.json_file import read_file

EXPECTED = "a text file with one prompt a line"


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank. Raises DipgoError where there are none."""
    data = read_file(Path(path), expected=EXPECTED)
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DipgoError(
            str(path),
            found=f"bytes that are not UTF-8 ({error.reason} at {error.start})",
            expected=EXPECTED,
            remedy="save it as UTF-8",
        ) from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise DipgoError(
            str(path), found="no prompts", expected=EXPECTED, remedy="write at least one"
        )
    return prompts
