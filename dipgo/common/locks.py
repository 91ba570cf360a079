"""Locks files and folders for as long as a process uses them; the system drops a dead one's locks.

Locks are those of `flock`, which processes in other containers see too. Where a file system has
none, nothing counts as left behind, and a second process is not noticed.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dipgo.common.errors import DipgoError
from dipgo.common.warn import warn

if sys.platform != "win32":
    import fcntl


def hold(descriptor: int) -> None:
    """Locks an open file as one in use, until it is closed; does nothing where locks are missing.

    The lock is a shared one, which NFS grants on folders too.
    """
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def take(descriptor: int) -> bool:
    """Locks an open file that no living process holds, and returns whether that is certain."""
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


@contextmanager
def only_one(file: Path, where: Path, work: str) -> Iterator[None]:
    """Holds a lock file while the context lasts, so that no other process does the same work.

    Args:
        file: The lock file.
        where: The folder that the error names.
        work: The work, as in "an evaluation".

    Raises:
        DipgoError: Another process holds it.
        OSError: The file cannot be made.
    """
    descriptor = _open_locked(file, where, work)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _open_locked(file: Path, where: Path, work: str) -> int:
    """Opens the lock file and locks it, unless a process that just ended has removed it by then."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        descriptor = os.open(file, flags, 0o666)
        try:
            _lock_or_refuse(descriptor, where, work)
        except DipgoError:
            os.close(descriptor)
            raise
        if is_still(file, descriptor):
            return descriptor
        os.close(descriptor)


def is_still(path: Path, descriptor: int) -> bool:
    """Returns whether a path still names the file that was opened there."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _lock_or_refuse(descriptor: int, where: Path, work: str) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            warn(f"{where}: a file system without locks, where {work} more would not be noticed")
            return
        raise DipgoError(
            str(where),
            found=f"{work} that another process is doing there",
            expected="a folder for each",
            remedy="wait until it has ended, or choose another folder",
        ) from None
