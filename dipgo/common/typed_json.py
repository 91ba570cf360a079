"""Decodes typed JSON with errors a user can act on, and writes text files in one step."""

import json
import re
from codecs import BOM_UTF8
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dipgo.common.errors import DipgoError
from dipgo.common.regular_files import read_file
from dipgo.common.staged import in_place_of

__all__ = ["decode_json", "read_file", "write_text"]

T = TypeVar("T")

MOST_CONTAINERS = 2_000_000
"""Lists and objects in a document; each takes up to a hundred times the memory of its text."""

LONGEST_TEXT = 200
"""Characters of a document that an error shows."""


def decode_json(data: bytes, cls: type[T], *, name: str, remedy: str, keys_once: bool = True) -> T:
    """Returns the JSON document `data` as a `cls`.

    Args:
        data: The document in UTF-8, which may begin with a byte order mark, as Windows writes it.
        cls: The type to decode to, which msgspec must know.
        name: The file's name, for errors.
        remedy: What the user can do about a document that is not a `cls`.
        keys_once: Whether to refuse a key that an object has twice, which nobody can mean. It takes
            several times the time of decoding; without it, the last value counts.

    Raises:
        DipgoError: The document is not JSON, or not a `cls`; the error names the JSON path.
    """
    data = data.removeprefix(BOM_UTF8)
    if data.count(b"{") + data.count(b"[") > MOST_CONTAINERS:
        raise DipgoError(
            name,
            found="a document of millions of lists and objects",
            expected=f"at most {MOST_CONTAINERS:,}",
            remedy=remedy,
        )
    try:
        decoded = msgspec.json.decode(data, type=cls)
        if keys_once:
            _check_keys(data, name, remedy)
        return decoded
    except msgspec.ValidationError as error:
        raise _type_error(name, str(error), remedy) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DipgoError(
            name,
            found=f"text that is not JSON ({_shortened(str(error))})",
            expected="a whole JSON document in UTF-8",
            remedy=remedy,
        ) from None


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all, as `dipgo.common.staged` does.

    Raises:
        DipgoError: The file cannot be written.
    """
    try:
        with in_place_of(path) as staging:
            staging.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DipgoError(
            str(path),
            found=f"a place that cannot be written ({error.strerror or error})",
            expected="a folder that exists and may be written to",
            remedy="make the folder, or choose another path",
        ) from None


def _check_keys(data: bytes, name: str, remedy: str) -> None:
    """Checks that no object has a key twice."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) == len(pairs):
            return
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise DipgoError(
            name,
            found=f"the key {_shortened(twice)} a second time",
            expected="each key of an object once",
            remedy=remedy,
        )

    json.loads(data.decode(), object_pairs_hook=check)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _type_error(name: str, message: str, remedy: str) -> DipgoError:
    """Turns msgspec's message on a document of another type into where, found and expected."""
    text, _, place = (_shortened(part) for part in message.partition(" - at `"))
    where = f"{name}, {place.rstrip('`')}" if place else name
    if mismatch := re.fullmatch(r"Expected (.+), got (.+)", text):
        return DipgoError(where, found=mismatch[2], expected=mismatch[1], remedy=remedy)
    if field := re.fullmatch(r"Object contains unknown field (.+)", text):
        return DipgoError(
            where,
            found=f"unknown field {field[1]}",
            expected="only the fields of the format",
            remedy="take the field out, or fix its name",
        )
    if field := re.fullmatch(r"Object missing required field (.+)", text):
        return DipgoError(
            where, found=f"no field {field[1]}", expected="every required field", remedy=remedy
        )
    return DipgoError(where, found=text, expected="a value the format allows", remedy=remedy)
