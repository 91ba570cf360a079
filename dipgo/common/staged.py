"""Writes a file whole or not at all: next to its destination, which it then replaces in one step.

A link stays, and the file that it leads to is replaced. A device or pipe is written to when the
content is whole.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dipgo.common.errors import DipgoError
from dipgo.common.leftovers import remove_leftovers, temporary_file, temporary_folder

_MOST_LINKS = 40
"""As many as Linux follows."""


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a path with the same suffix; on success that file's content becomes that of `path`.

    Raises:
        DipgoError: `path` cannot be written.
    """
    try:
        with in_place_of(path) as staging:
            yield staging
    except OSError as error:
        raise not_writable(path, "a place that cannot be written", error) from error


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Does the same as `staged_file`.

    Raises:
        OSError: `path` cannot be written.
    """
    if is_stream(path):
        with temporary_file(scratch_place(), path.suffix) as staging:
            yield staging
            _pour(staging, path)
        return
    target = followed(path)
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "neither a file nor a device to write characters to")
    remove_leftovers(target.parent)
    with temporary_file(target.parent, path.suffix) as staging:
        yield staging
        os.replace(staging, target)


def scratch_place() -> Path:
    """Returns the system's folder for temporary files, without what killed commands left there."""
    import tempfile

    folder = Path(tempfile.gettempdir())
    remove_leftovers(folder)
    return folder


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields an empty folder among the system's temporary files, which is removed in the end.

    Raises:
        DipgoError: It cannot be made.
    """
    with ExitStack() as held:
        try:
            folder = held.enter_context(temporary_folder(scratch_place()))
        except OSError as error:
            where = Path("folder for temporary files")
            raise not_writable(where, "none that can be written", error) from None
        yield folder


def is_stream(path: Path) -> bool:
    """Returns whether a path is a device of characters, a pipe, or an open file of this process."""
    if own_descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def own_descriptor(path: Path) -> int | None:
    """Returns the number of the open file that a path such as /dev/stdout stands for, or None."""
    place = os.fspath(path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(os.path.abspath(place))
        folder = os.path.realpath(folder)
        if re.fullmatch(r"\d+", name) and folder in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(name)
        try:
            place = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except OSError:
            return None
    return None


def followed(path: Path) -> Path:
    """Returns the path that a link leads to, or `path` itself where it is none."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _pour(source: Path, stream: Path) -> None:
    number = own_descriptor(stream)
    with suppress(AttributeError):  # sys.stdout is None where there is none
        sys.stdout.flush()
    descriptor = os.open(stream, os.O_WRONLY) if number is None else os.dup(number)
    with open(descriptor, "wb") as out, source.open("rb") as content:
        shutil.copyfileobj(content, out)


def not_writable(path: Path, problem: str, error: Exception) -> DipgoError:
    """Returns the error to raise where nothing can be written at `path`.

    Args:
        path: The path that was asked for.
        problem: What was found there.
        error: The exception that the attempt raised; its reason is reported.
    """
    reason = getattr(error, "strerror", None) or error
    return DipgoError(
        str(path),
        found=f"{problem} ({reason})",
        expected="a place that may be written, with room enough",
        remedy="free some space or choose another place; nothing was left behind",
    )
