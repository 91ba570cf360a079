"""Opens files that a stranger may have made: regular ones, not empty, none larger than is stated.

A pipe or a device may block for ever, or never end; links are followed, since the Hub's cache is
made of them.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from dipgo.common.errors import DipgoError

MIB = 1 << 20

MOST_BYTES = 64 * MIB
"""The size of the largest text or document that is read, if nothing else is stated."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_file(path: Path, *, expected: str, most: int | None = MOST_BYTES) -> bytes:
    """Returns the bytes at `path`.

    Args:
        path: The file.
        expected: What the file should be, in the words of the error.
        most: The largest size in bytes; None for a file whose size has been checked.

    Raises:
        DipgoError: The file cannot be read, is empty or no regular one, or is larger.
    """
    with open_file(path, expected=expected, most=most) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read(size + 1)
        except OSError as error:
            raise _unreadable(str(path), error.strerror, expected) from None
    if len(data) > size:
        raise _unreadable(str(path), "it grows while it is read", expected)
    return data


def open_file(
    path: Path, *, expected: str, most: int | None = MOST_BYTES, where: str = ""
) -> BufferedReader:
    """Opens the file at `path` for reading, without waiting for anything.

    Args:
        path: The file.
        expected: What the file should be, in the words of the error.
        most: The largest size in bytes, or None.
        where: The place that errors name, by default the path.

    Raises:
        DipgoError: The file cannot be opened, is empty or no regular one, or is larger.
    """
    where = where or str(path)
    check_file(path, expected=expected, most=most, where=where)
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    except OSError as error:
        raise _unreadable(where, error.strerror, expected) from None
    try:
        _check(where, os.fstat(file.fileno()), expected, most)  # it may be another one by now
    except DipgoError:
        file.close()
        raise
    return file


def check_file(
    path: Path,
    *,
    expected: str,
    most: int | None = MOST_BYTES,
    where: str = "",
    may_be_empty: bool = False,
) -> None:
    """Checks a file that a library is to open.

    Args:
        path: The file.
        expected: What the file should be, in the words of the error.
        most: The largest size in bytes, or None.
        where: The place that errors name, by default the path.
        may_be_empty: Whether an empty file is one of the kind.

    Raises:
        DipgoError: There is no such file, it is empty or no regular one, or it is larger.
    """
    where = where or str(path)
    try:
        _check(where, os.stat(path), expected, most, may_be_empty)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise _unreadable(where, getattr(error, "strerror", error), expected) from None


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file; Windows has no flag for that, nor pipes among its files."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(
    where: str,
    facts: os.stat_result,
    expected: str,
    most: int | None,
    may_be_empty: bool = False,
) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise DipgoError(
            where,
            found=KINDS.get(stat.S_IFMT(facts.st_mode), "something that is not a file"),
            expected=expected,
            remedy="give the path of a file",
        )
    if not facts.st_size and not may_be_empty:  # so say files in /proc, whose reading may wait
        raise DipgoError(where, found="an empty file", expected=expected, remedy="check the path")
    if most is not None and facts.st_size > most:
        raise DipgoError(
            where,
            found=f"a file of {facts.st_size / MIB:.1f} MiB",
            expected=f"{expected}, of at most {most / MIB:g} MiB",
            remedy="check that it is the right file",
        )


def _unreadable(where: str, reason: object, expected: str) -> DipgoError:
    return DipgoError(
        where,
        found=f"nothing that can be read ({reason})",
        expected=expected,
        remedy="check the path",
    )
