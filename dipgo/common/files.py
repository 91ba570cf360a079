"""Writes directories whole or not at all, and checks paths before work begins."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dipgo.common.errors import DipgoError, is_unicode, setting
from dipgo.common.exchange import exchange
from dipgo.common.leftovers import OLD, remove_leftovers, temporary_folder
from dipgo.common.regular_files import read_file
from dipgo.common.staged import followed, is_stream, not_writable, own_descriptor

EXPECTED = "a text file with one prompt a line"

Foreign = Callable[[Path], str]
"""A function that returns what at a path dipgo has not written, in words; "" if it is all ours."""


_LINE_END = re.compile(r"\r\n|\n|\r")
"""Other characters that Python's `splitlines` ends lines at may stand in a prompt."""

_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""The byte order mark; files that were joined have one in the middle."""


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """Returns the lines of a text file that are not blank, stripped.

    Raises:
        DipgoError: The file cannot be read, is not UTF-8, or has no such line.
    """
    data = read_file(Path(path), expected=EXPECTED)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DipgoError(
            str(path),
            found=f"bytes that are not UTF-8 ({error.reason} at {error.start})",
            expected=EXPECTED,
            remedy="save it as UTF-8",
        ) from None
    lines = [line.removeprefix(_MARK).strip() for line in _LINE_END.split(text)]
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise DipgoError(
            str(path), found="no prompts", expected=EXPECTED, remedy="write at least one"
        )
    _check_no_nul(str(path), lines)
    return prompts


def _check_no_nul(where: str, lines: list[str]) -> None:
    """Checks that no line has a NUL character, which is in texts of two bytes a character.

    Raises:
        DipgoError: A line has one.
    """
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DipgoError(
                f"{where}, line {number}",
                found="a NUL character",
                expected=EXPECTED,
                remedy="save it as UTF-8, and take that character out",
            )


def check_destination(out: Path, force: bool, foreign: Foreign) -> None:
    """Checks that `out` is free, or may be replaced, and can be written.

    Args:
        out: The directory to be written.
        force: Whether an existing `out` may be replaced.
        foreign: Returns what there is not ours; nothing is replaced then.

    Raises:
        DipgoError: `out` exists and may not be replaced, or could not be written.
    """
    _check_name(out)
    folder = _nearest_folder(out.absolute().parent)
    remove_leftovers(folder)
    if os.path.lexists(out) and not force:
        raise DipgoError(
            str(out),
            found="something of that name",
            expected="a directory that does not exist",
            remedy=f"choose another name, or give {setting('force')} to replace an export",
        )
    if os.path.lexists(out) and (found := foreign(out)):
        raise DipgoError(
            str(out),
            found=found,
            expected="an export directory or the model repository of one, to replace",
            remedy="choose another name, or remove it yourself",
        )
    _check_can_write(out, folder)


def check_folder_destination(out: Path) -> None:
    """Checks that files can be written in `out`, a folder that may exist already.

    Raises:
        DipgoError: `out` is not a folder, or no file can be made in it.
    """
    _check_name(out)
    if os.path.lexists(out) and not out.is_dir():
        raise DipgoError(
            str(out),
            found="something that is not a folder",
            expected="a folder, or a name that is free",
            remedy="choose another name",
        )
    _check_can_write(out, _nearest_folder(out.absolute()))


def check_file_destination(path: Path) -> None:
    """Checks that a file can be written at `path`; an existing file may be overwritten.

    Raises:
        DipgoError: Its folder does not exist, `path` is a folder, or no file can be made there.
    """
    _check_name(path)
    if is_stream(path):
        _check_stream(path)
        return
    target = followed(path).absolute()
    if not target.parent.is_dir():
        raise DipgoError(
            str(path),
            found="no such folder",
            expected="a file in a folder that exists",
            remedy="make the folder first, or choose another",
        )
    if target.exists() and not target.is_file():
        raise DipgoError(
            str(path),
            found="a folder" if target.is_dir() else "a disk or socket",
            expected="a file to write",
            remedy="name a file in it" if target.is_dir() else "name a file",
        )
    remove_leftovers(target.parent)
    _check_can_write(path, target.parent)


def check_no_result(path: Path, force: bool) -> None:
    """Checks that no result of earlier work would be replaced; an empty file is none.

    Raises:
        DipgoError: There is a file with content at `path`, and not `force`.
    """
    if not force and path.is_file() and path.stat().st_size:
        raise DipgoError(
            str(path),
            found="an earlier result",
            expected="a file that does not exist",
            remedy=f"choose another name, or give {setting('force')} to replace it",
        )


def _check_name(path: Path) -> None:
    """Checks that a name can be written as text, which libraries ask for, and be looked up.

    Raises:
        DipgoError: It has bytes that are not UTF-8, which Python holds as surrogates; or is too
            long, or a link that leads to itself.
    """
    if not is_unicode(str(path)):
        raise DipgoError(
            str(path),
            found="a name with bytes that are not UTF-8",
            expected="a name in UTF-8",
            remedy="choose another name",
        )
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except OSError as error:
        raise not_writable(path, "a name that cannot be used", error) from None


def _check_stream(path: Path) -> None:
    """Raises DipgoError if a device or pipe cannot be written to."""
    if own_descriptor(path) is None and not os.access(path, os.W_OK):
        raise not_writable(path, "a device or pipe", PermissionError("Permission denied"))


def _nearest_folder(path: Path) -> Path:
    """Returns `path`, or the nearest parent of it that exists."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def _check_can_write(path: Path, folder: Path) -> None:
    """Makes a file to see: permissions say nothing of read-only disks, or to the superuser."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_writable(path, f"{folder}, where no file can be made", error) from None


@contextmanager
def staged_directory(out: Path, force: bool, foreign: Foreign) -> Iterator[Path]:
    """Yields a new directory next to `out`, which becomes `out` on success and else is removed.

    Raises:
        DipgoError: `out` cannot be written, or may not be replaced (`check_destination`).
    """
    out = out.absolute()
    try:
        with _parents(out), temporary_folder(out.parent) as staging:
            yield staging
            staging.chmod(0o755)
            check_destination(out, force, foreign)
            _swap(staging, out)
    except OSError as error:
        raise not_writable(out, "a place that cannot be written", error) from error


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Makes the folders above `path`; on an error it removes those that it made."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # a folder that others use by now is not empty
            for folder in missing:
                folder.rmdir()
        raise


def _swap(staging: Path, out: Path) -> None:
    """Puts `staging` in place of `out`; an old `out` then has the name of `staging`, or is gone.

    Where the system cannot exchange two folders, the old one is moved into a folder of which the
    next command knows what to put back, should this one be killed before the new one has its name.
    """
    if not os.path.lexists(out):
        staging.rename(out)
    elif not exchange(staging, out):
        with temporary_folder(out.parent, OLD) as retired:
            held = retired / out.name
            try:
                out.rename(held)
                staging.rename(out)
            finally:
                if not os.path.lexists(out):
                    held.rename(out)
