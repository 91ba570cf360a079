"""Reads the wire format of Protocol Buffers: fields by number, nothing copied, nothing recursive.

The package `onnx` is not there where an export is run.

Source:
    "Encoding" in the documentation of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types. Groups (3 and 4) went out of use before there was ONNX."""

MOST_KEY, MOST_KEY_BYTES, MOST_SIZE = 2**32, 5, 2**31
"""Beyond these readers differ: some keep the lower bits of a key, and so find other fields."""

Field: TypeAlias = tuple[int, int | memoryview]
"""A field's number, with its value: an integer, or the bytes of a text, message or fixed number."""


def fields(data: memoryview) -> Iterator[Field]:
    """Yields the fields of a message in the order of the file.

    Raises:
        ValueError: The bytes are not a message.
    """
    position, end = 0, len(data)
    while position < end:
        begin = position
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if key >= MOST_KEY or position - begin > MOST_KEY_BYTES or not number:
            raise ValueError(f"a field of the number {number}")
        if wire == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == BYTES:
            begin = position
            size, position = _varint(data, position)
            if size >= MOST_SIZE or position - begin > MOST_KEY_BYTES:
                raise ValueError(f"a field of {size} bytes")
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if size > end - position:
            raise ValueError("a field that ends after the file")
        yield number, data[position : position + size]
        position += size


def integers(value: int | memoryview) -> list[int]:
    """Returns the numbers of a repeated field, which may be packed in one or have one each.

    Raises:
        ValueError: The bytes are not such numbers.
    """
    if isinstance(value, int):
        return [value]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(number)
    return numbers


def text(value: int | memoryview) -> str:
    """Returns a text.

    Raises:
        ValueError: The field is a number, or not UTF-8.
    """
    if isinstance(value, int):
        raise ValueError("a number in place of a text")
    return str(value, "utf-8")


def message(value: int | memoryview) -> memoryview:
    """Returns the bytes of a message within a message.

    Raises:
        ValueError: The field is a number.
    """
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Returns a number of seven bits a byte, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("a number that ends after the file")
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, position
    raise ValueError("a number of more than 64 bits")
