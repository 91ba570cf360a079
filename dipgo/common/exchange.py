"""Exchanges two paths in one call, so that neither name is ever missing."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_HERE = -100
"""AT_FDCWD: paths are relative to the working directory."""

_EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2)."""

_LACKING = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}
"""What kernels and file systems that cannot exchange answer."""


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two paths of one file system, and returns whether the system can.

    Raises:
        OSError: The system can, and refuses: a path does not exist, or may not be changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # a C library of before 2018
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _LACKING:
        return False
    raise OSError(number, os.strerror(number), str(other))
