"""Makes temporary files and folders that are known as left over once their process is dead.

Each has a name of its own, drawn at random and made new (no planted link is followed), which is
short, whatever it is to become. A lock on it tells that its process lives. Commands remove what
dead ones have left in a folder that they write to, and say so.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dipgo.common.locks import hold, is_still, take
from dipgo.common.warn import warn

NEW, OLD = ".dipgo-new-", ".dipgo-old-"
"""How names begin: of what is being written, and of a folder around what is being replaced."""

_NAME = re.compile(r"\.dipgo-(new|old)-[0-9a-f]{16}(\.\w{1,15})?")

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINK


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yields an empty new file, with the permissions of the umask; removes it if it is still there.

    Raises:
        OSError: It cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK

    def make(path: Path) -> int:
        return os.open(path, flags, 0o666)

    suffix = suffix if re.fullmatch(r"\.\w{1,15}", suffix) else ""
    path, descriptor = _make(folder, NEW, suffix, make)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def temporary_folder(folder: Path, prefix: str = NEW) -> Iterator[Path]:
    """Yields an empty new folder that is this user's alone; removes what has its name at the end.

    Raises:
        OSError: It cannot be made.
    """

    def make(path: Path) -> int:
        path.mkdir(0o700)
        return _open_folder(path)

    path, descriptor = _make(folder, prefix, "", make)
    try:
        yield path
    finally:
        _discard(path)
        if descriptor >= 0:
            os.close(descriptor)


def _make(folder: Path, prefix: str, suffix: str, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Makes something new and locks it: until it is locked, another process may remove it."""
    while True:
        path = folder / f"{prefix}{secrets.token_hex(8)}{suffix}"
        try:
            descriptor = make(path)
        except FileExistsError:
            continue
        except FileNotFoundError:
            if not folder.is_dir():
                raise
            continue  # another process has just removed it
        if descriptor < 0:
            return path, descriptor
        if sys.platform == "win32":  # has no such locks, and renames no file that is open
            os.close(descriptor)
            return path, -1
        hold(descriptor)
        if is_still(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def _open_folder(path: Path) -> int:
    """Opens a folder to lock it; returns -1 where the platform opens none."""
    return os.open(path, _FOLDER) if hasattr(os, "O_DIRECTORY") else -1


def _discard(path: Path) -> None:
    """Removes a folder, which may have taken another's place and holds no lock then."""
    descriptor = -1
    with suppress(OSError):
        descriptor = _open_folder(path)
    if descriptor >= 0:
        hold(descriptor)
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if descriptor >= 0:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes what dead processes of this user have left in a folder, and warns of it in a line.

    A folder that one was replacing, where the system cannot exchange two, is put back.
    """
    removed, nbytes = 0, 0
    for path in _temporary(folder):
        with _taken(path) as is_dead:
            if not is_dead:
                continue
            size = _nbytes(path)
            if path.name.startswith(OLD):
                _put_back(path)
            _remove(path)
            if not os.path.lexists(path):
                removed, nbytes = removed + 1, nbytes + size
    if removed:
        things = "a temporary file or folder" if removed == 1 else f"{removed} temporary files"
        warn(f"{folder}: removed {things} of a command that was killed, {nbytes / 1e6:.1f} MB")


def is_leftover(path: Path) -> bool:
    """Returns whether a path is a temporary one of a dead process."""
    if not _NAME.fullmatch(path.name):
        return False
    with _taken(path) as is_dead:
        return is_dead


def is_temporary(name: str) -> bool:
    """Returns whether a file or folder of this name is a temporary one, of any process."""
    return bool(_NAME.fullmatch(name))


def _temporary(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name)]
    except OSError:
        return []


@contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Yields whether a temporary path is this user's and its process dead; locks it if so."""
    descriptor = -1
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            descriptor = _open_folder(path)
        elif stat.S_ISREG(mode):
            descriptor = os.open(path, os.O_RDWR | _NO_LINK)
    except OSError:
        descriptor = -1
    if descriptor < 0:
        yield False
        return
    try:
        yield take(descriptor) and os.fstat(descriptor).st_uid == os.geteuid()
    finally:
        os.close(descriptor)


def _put_back(path: Path) -> None:
    """Puts the folder that one of OLD holds back to its place, unless something has that name."""
    for held in path.iterdir():
        place = path.parent / held.name
        is_folder = held.is_dir() and not held.is_symlink()  # nothing else is ever put aside
        if is_folder and not os.path.lexists(place):
            held.rename(place)
            warn(f"{place}: put back, as a command was killed while it replaced it")


def _remove(path: Path) -> None:
    with suppress(OSError, RecursionError):  # folders may lie as deep as a stranger likes
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _nbytes(path: Path) -> int:
    """Returns the bytes of a file, or of the files of a folder."""
    paths = path.rglob("*") if path.is_dir() else (path,)
    total = 0
    with suppress(RecursionError):
        for each in paths:
            with suppress(OSError):
                total += os.lstat(each).st_size
    return total
