"""Reads members of zip archives, whose sizes are known before anything is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import IO, Any

PIECE = 1 << 20
"""Bytes that are read at once, and the largest table of contents: that of ten thousand members."""


class _Pieces(BufferedReader):
    """A file of which no more than a piece is read at once, whatever its own tables say."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns bytes.

        Raises:
            ValueError: They are more than a piece.
        """
        most = PIECE + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) > PIECE:
            raise ValueError("a table of contents that is too long")
        return data


@contextmanager
def open_archive(file: Any) -> Iterator[zipfile.ZipFile]:
    """Yields the zip archive in a binary file, which stays open.

    Args:
        file: An unbuffered or buffered file, or io.BytesIO.

    Raises:
        ValueError: Its table of contents is too long.
        zipfile.BadZipFile: The file is no archive.
    """
    pieces = _Pieces(file)
    try:
        with zipfile.ZipFile(pieces) as archive:
            yield archive
    finally:
        pieces.detach()


def members(archive: zipfile.ZipFile, *, most: int, stored: bool = False) -> list[zipfile.ZipInfo]:
    """Returns the members of an archive.

    Args:
        archive: The archive.
        most: The most bytes that all of them may hold.
        stored: Whether none may be compressed.

    Raises:
        ValueError: A member is encrypted, compressed in another way, or there twice, or all of
            them hold more.
    """
    infos = archive.infolist()
    methods = (zipfile.ZIP_STORED,) if stored else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    for info in infos:
        if info.flag_bits & 1:
            raise ValueError(f"the encrypted member {info.filename!r:.60}")
        if info.compress_type not in methods:
            raise ValueError(f"the member {info.filename!r:.60}, compressed by another method")
    if len({info.filename for info in infos}) < len(infos):
        raise ValueError("a member that is there twice")
    total = sum(info.file_size for info in infos)
    if total > most:
        raise ValueError(f"members of {total:,} bytes, more than {most:,}")
    return infos


def read_pieces(member: IO[bytes], size: int) -> Iterator[bytes]:
    """Yields the next `size` bytes of a member, a piece at a time.

    Raises:
        ValueError: There are fewer.
    """
    while size:
        piece = member.read(min(size, PIECE))
        if not piece:
            raise ValueError("a member that is shorter than it says")
        size -= len(piece)
        yield piece


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Returns the bytes of a member, and checks that they are as many as it says.

    Raises:
        ValueError: They are not.
    """
    with archive.open(info) as member:
        data = b"".join(read_pieces(member, info.file_size))
        if member.read(1):  # reading on past the end also checks the sum
            raise ValueError("a member that is longer than it says")
    return data
