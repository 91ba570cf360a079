"""Decodes typed JSON with errors a user can act on, and writes text files in one step."""

import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import TypeVar

import msgspec

from dipgo.common.errors import DipgoError
from dipgo.common.staged import in_place_of

T = TypeVar("T")


def read_file(path: Path, *, expected: str) -> bytes:
    """Returns the bytes at `path`.

    Args:
        path: The file.
        expected: What the file should be, in the words of the error.

    Raises:
        DipgoError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DipgoError(
            str(path),
            found=f"nothing that can be read ({error.strerror})",
            expected=expected,
            remedy="check the path",
        ) from None


def decode_json(data: bytes, cls: type[T], *, name: str, remedy: str) -> T:
    """Returns the JSON document `data` as a `cls`.

    Args:
        data: The document in UTF-8, which may begin with a byte order mark, as Windows writes it.
        cls: The type to decode to, which msgspec must know.
        name: The file's name, for errors.
        remedy: What the user can do about a document that is not a `cls`.

    Raises:
        DipgoError: The document is not JSON, or not a `cls`; the error names the JSON path.
    """
    try:
        return msgspec.json.decode(data.removeprefix(BOM_UTF8), type=cls)
    except msgspec.ValidationError as error:
        raise _type_error(name, str(error), remedy) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DipgoError(
            name,
            found=f"text that is not JSON ({error})",
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


def _type_error(name: str, message: str, remedy: str) -> DipgoError:
    """Turns msgspec's message on a document of another type into where, found and expected."""
    text, _, place = message.partition(" - at `")
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
