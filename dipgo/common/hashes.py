"""Hashes files; apart from `common.files`, as every run imports it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal digits.

    The file may be larger than memory.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
