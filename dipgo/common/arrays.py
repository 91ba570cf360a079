"""Reads numpy's archives of arrays: names, types and shapes before any number."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.archives import members, open_archive, read_pieces

NUMBERS = "biuf"
"""The numpy types that are read, by their `kind`: booleans, integers, floats."""

SUFFIX = ".npy"

_VERSIONS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an array before its numbers are read; `begins` is where they do."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    begins: int

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_arrays(file: Any, *, most: int, stored: bool = False) -> dict[str, NDArray[Any]]:
    """Returns the arrays of numbers of a `.npz` file by name.

    Args:
        file: The file, open for reading.
        most: The most bytes that all arrays may hold.
        stored: Whether they may not be compressed.

    Raises:
        Exception: The file is no such archive, is damaged, or holds more; of what class depends
            on where `zipfile` and numpy meet the damage.
    """
    with open_archive(file) as archive:
        infos = members(archive, most=most, stored=stored)
        return {info.filename.removesuffix(SUFFIX): _read(archive, info) for info in infos}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        header = read_header(member)
        if header.begins + header.nbytes != info.file_size:
            raise ValueError(f"{info.filename!r:.60} of another size than its shape says")
        flat = np.empty(math.prod(header.shape), header.dtype)
        buffer, place = flat.view(np.uint8), 0
        for piece in read_pieces(member, header.nbytes):
            buffer[place : place + len(piece)] = np.frombuffer(piece, np.uint8)
            place += len(piece)
        if member.read(1):  # reading on past the end also checks the sum
            raise ValueError(f"{info.filename!r:.60} is longer than it says")
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def read_header(file: IO[bytes]) -> Header:
    """Returns the header of a `.npy` file, which ends where its numbers begin.

    Raises:
        ValueError: It is none, or not of numbers.
    """
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:
        raise ValueError(f"an array of format {version}")
    shape, fortran, dtype = _VERSIONS[version](file)
    if dtype.kind not in NUMBERS or any(count < 0 for count in shape):
        raise ValueError(f"an array of {dtype} and shape {shape}")
    return Header(shape, dtype, fortran, file.tell())
