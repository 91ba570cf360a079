"""Typed JSON files: decoding with errors a user can act on, and writing in one step."""

import os
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from dipgo.common.errors import DipgoError

T = TypeVar("T")


def read_file(path: Path, *, expected: str) -> bytes:
    """The bytes at `path`; DipgoError, in the words of `expected`, where they cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DipgoError(
            str(path),
            found=f"nothing that can be read ({error.strerror})",
            expected=expected,
            remedy="check the path",
        ) from None


def decode_json(data: bytes, kind: type[T], *, name: str, remedy: str) -> T:
    """`data` as a `kind`; DipgoError naming the file and the JSON path where it is not one."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _type_error(name, str(error), remedy) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DipgoError(
            name,
            found=f"text that is not JSON ({error})",
            expected="a whole JSON document",
            remedy=remedy,
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write beside `path` and rename in one step, so that no half-written file is ever seen."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DipgoError(
            str(path),
            found=f"a place that cannot be written ({error.strerror})",
            expected="a folder that exists and may be written to",
            remedy="make the folder, or choose another path",
        ) from None


def _type_error(name: str, message: str, remedy: str) -> DipgoError:
    """msgspec's words for a document of other types, as where, found and expected."""
    text, _, place = message.partition(" - at `")
    where = f"{name}, {place.rstrip('`')}" if place else name
    if mismatch := re.fullmatch(r"Expected (.+), got (.+)", text):
        return DipgoError(where, found=mismatch[2], expected=mismatch[1], remedy=remedy)
    if field := re.fullmatch(r"Object contains unknown field (.+)", text):
        return DipgoError(
            where,
            found=f"unknown field {field[1]}",
            expected="only the fields of the format",
            remedy="take the field out, or mend its name",
        )
    if field := re.fullmatch(r"Object missing required field (.+)", text):
        return DipgoError(
            where, found=f"no field {field[1]}", expected="every required field", remedy=remedy
        )
    return DipgoError(where, found=text, expected="a value the format allows", remedy=remedy)
