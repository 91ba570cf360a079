"""Checks that a file of a directory is not a link to somewhere else."""

from __future__ import annotations

import os
from pathlib import Path

from dipgo.common.errors import DipgoError

BLOBS, SNAPSHOTS = "blobs", "snapshots"
"""Folders of the Hub's cache: in `snapshots/<commit>/` every file is a link into `blobs/`."""


def check_within(path: Path, directory: Path) -> None:
    """Checks where a file of a directory is, which may be a stranger's.

    Links within the directory are as good as files, and so are those of the Hub's cache.

    Args:
        path: The file, or a folder, which may be missing.
        directory: The directory, which may be reached by a link itself.

    Raises:
        DipgoError: The file is elsewhere.
    """
    try:
        found, root = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    except (OSError, ValueError):  # what reads it says why
        return
    in_cache = root.parent.name == SNAPSHOTS and found.parent == root.parents[1] / BLOBS
    if not found.is_relative_to(root) and not in_cache:
        raise DipgoError(
            str(path),
            found="a link that leads out of the directory",
            expected="files of the directory itself",
            remedy="copy the file there, or link the whole directory",
        )
