"""Reads the header of a safetensors file without its tensors."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from dipgo.common.errors import DipgoError

LONGEST = 100_000_000
"""Bytes of a header, as in the library."""

METADATA = "__metadata__"

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of an element, by the type's name in the file."""

Count = Annotated[int, Meta(ge=0, le=2**62)]


class Entry(msgspec.Struct, frozen=True):
    """A tensor: its type as the file names it, its shape, and its first byte and end."""

    dtype: str
    shape: list[Count]
    data_offsets: tuple[Count, Count]


def read_header(path: Path, *, remedy: str) -> dict[str, Entry]:
    """Returns the tensors of a safetensors file, with offsets from the file's beginning.

    Raises:
        DipgoError: The file is damaged: a tensor is not within it, or not of its shape's size.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LONGEST:
                raise ValueError(f"a header of {length} bytes")
            # An error of msgspec is a ValueError too.
            header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
        header.pop(METADATA, None)
        base = 8 + length
        nbytes = path.stat().st_size - base
        return {name: _entry(name, raw, base, nbytes) for name, raw in header.items()}
    except (
        ValueError,
        struct.error,
        OSError,
        RecursionError,
    ) as error:  # msgspec's are ValueErrors
        raise DipgoError(
            str(path), found=str(error), expected="a whole safetensors file", remedy=remedy
        ) from None


def _entry(name: str, raw: msgspec.Raw, base: int, nbytes: int) -> Entry:
    entry = msgspec.json.decode(raw, type=Entry)
    start, end = entry.data_offsets
    bits = BITS.get(entry.dtype)
    if not start <= end <= nbytes:
        raise ValueError(f"{name}: bytes {start} to {end} of {nbytes}")
    if bits is not None and (end - start) * 8 != bits * math.prod(entry.shape):
        raise ValueError(f"{name}: other bytes than its shape has")
    return Entry(entry.dtype, entry.shape, (base + start, base + end))
