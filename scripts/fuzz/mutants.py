"""Damages files and JSON documents in every way that a stranger's file may be damaged.

The same data and seed give the same mutants.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[str | int, ...]
"""The keys and indices that lead to a value of a JSON document."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, -1e308),
    *(2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40),
    *(
        "",
        "0",
        "a",
        "a\0b",
        "\x1b[31m",
        "\ud800",
        "\u2028",
        "a" * 300,
        "../../outside",
        "/dev/zero",
    ),
    *([], {}, [[]], [None], {"": None}, ["a"] * 50),
)
"""Values of each type, near its bounds or beyond them, to put in place of a value."""

HUGE = (
    *(str(10**digits) for digits in (10, 18, 100, 4000)),
    *("1" * 5000, "1e400", "-1e400", "NaN", "Infinity", "-Infinity"),
)
"""Numbers as JSON text, also such as JSON does not have."""

DEPTHS = (100, 1_000, 100_000)
"""Lists in lists, in number."""

PAGE = 4096


@dataclass(frozen=True)
class Mutant:
    """Damaged data, and in words how it was damaged."""

    name: str
    data: bytes


def damage_bytes(data: bytes, count: int, seed: int = 0) -> Iterator[Mutant]:
    """Yields `count` mutants of a file: cut, flipped, zeroed, swapped, repeated, grown.

    The kinds take turns; places are drawn.
    """
    draw = random.Random(seed)
    for index in range(count if data else 0):
        name, change = list(BYTE_CHANGES.items())[index % len(BYTE_CHANGES)]
        place, size = draw.randrange(len(data)), draw.randint(1, max(1, len(data) // 4))
        damaged = change(data, place, size, draw)
        yield Mutant(f"{name} at {place} of {len(data)}", damaged)


def every_cut(data: bytes, most: int) -> Iterator[Mutant]:
    """Yields the file cut at every k-th byte, k such that there are at most `most`."""
    for place in _spread(len(data), most):
        yield Mutant(f"cut at {place} of {len(data)}", data[:place])


def every_flip(data: bytes, most: int) -> Iterator[Mutant]:
    """Yields the file with a bit flipped in every k-th byte; the bits take turns."""
    for index, place in enumerate(_spread(len(data), most)):
        name = f"bit {index % 8} of byte {place} of {len(data)}"
        yield Mutant(name, _flip(data, place, index % 8))


def every_zeroed_page(data: bytes, most: int, page: int = PAGE) -> Iterator[Mutant]:
    """Yields the file with zeros in place of a page, as disks leave them after a crash."""
    for place in _spread(len(data), most):
        if any(data[place : place + page]):
            name = f"zeros from {place} of {len(data)}"
            yield Mutant(name, _over(data, place, bytes(page)))


def damage_json(
    document: Any,
    count: int,
    seed: int = 0,
    allow: Callable[[Place], bool] = lambda place: True,
) -> Iterator[Mutant]:
    """Yields `count` mutants of a JSON document, each damaged at one place, as bytes of JSON.

    A value is replaced by one of another type or of any size, taken out, given twice, renamed,
    repeated, swapped with another or wrapped; the kinds take turns, places are drawn.

    Args:
        document: The document as `json.loads` has it.
        count: The number of mutants.
        seed: The seed of places and values.
        allow: Whether a value at a place may be damaged.
    """
    draw = random.Random(seed)
    places = [place for place in places_of(document) if place and allow(place)]
    for index in range(count if places else 0):
        name, change = list(JSON_CHANGES.items())[index % len(JSON_CHANGES)]
        place = draw.choice(places)
        text = change(document, place, places, draw)
        path = "".join(f"[{key!r}]" for key in place)
        yield Mutant(f"{name} at {path}", text.encode("utf-8", "surrogatepass"))


def damage_values(
    document: Any, values: Sequence[Any] = VALUES, place: Place = ()
) -> Iterator[Mutant]:
    """Yields the document with each of its values replaced by each of `values`.

    Of a list only the first and the last entry are replaced.
    """
    for at in places_of(document, ends_only=True):
        if at[: len(place)] == place and at:
            for value in values:
                text = _dump(_replaced(document, at, value))
                name = f"{value!r:.40} at {''.join(f'[{key!r}]' for key in at)}"
                yield Mutant(name, text.encode("utf-8", "surrogatepass"))


def places_of(document: Any, ends_only: bool = False) -> list[Place]:
    """Returns the places of all values of a document, its own first, which is ().

    Args:
        document: The document.
        ends_only: Whether only the first and the last entry of a list count.
    """
    places: list[Place] = [()]
    for place in places:
        value = value_at(document, place)
        if isinstance(value, dict):
            places += [(*place, key) for key in value]
        elif isinstance(value, list):
            indices = range(len(value))
            ends = sorted({*indices[:1], *indices[-1:]}) if ends_only else indices
            places += [(*place, index) for index in ends]
    return places


def value_at(document: Any, place: Place) -> Any:
    """Returns the value at a place of a document."""
    for key in place:
        document = document[key]
    return document


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Returns JSON text of `depth` lists in one another."""
    return opening * depth + closing * depth


def _spread(length: int, most: int) -> range:
    return range(0, length, max(1, -(-length // max(1, most))))


def _over(data: bytes, place: int, piece: bytes) -> bytes:
    """Returns the data with another piece from a place on, of the same length in all."""
    return (data[:place] + piece + data[place + len(piece) :])[: len(data)]


def _flip(data: bytes, place: int, bit: int) -> bytes:
    return _over(data, place, bytes([data[place] ^ 1 << bit]))


ByteChange = Callable[[bytes, int, int, random.Random], bytes]
"""Takes the data, a place, a size and a source of numbers."""

BYTE_CHANGES: dict[str, ByteChange] = {
    "cut": lambda data, at, size, draw: data[:at],
    "a bit flipped": lambda data, at, size, draw: _flip(data, at, draw.randrange(8)),
    "noise": lambda data, at, size, draw: _over(data, at, draw.randbytes(min(size, 64))),
    "zeros": lambda data, at, size, draw: _over(data, at, bytes(min(size, PAGE))),
    "all bits set": lambda data, at, size, draw: _over(data, at, b"\xff" * 8),
    "taken out": lambda data, at, size, draw: data[:at] + data[at + size :],
    "repeated": lambda data, at, size, draw: data[: at + size] + data[at:],
    "swapped": lambda data, at, size, draw: data[at:] + data[:at],
    "grown": lambda data, at, size, draw: data[:at] + draw.randbytes(64) + data[at:],
}
"""Ways to damage a file, by their names."""


def _dump(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _replaced(document: Any, place: Place, value: Any) -> Any:
    """Returns a copy with another value at a place; what does not lead there is shared."""
    if not place:
        return value
    copy = document.copy()
    copy[place[0]] = _replaced(document[place[0]], place[1:], value)
    return copy


_MARK = "the place of another text 6f1d"


def _as_text(document: Any, place: Place, text: str) -> str:
    """Returns the document with a JSON text in place of a value, be it JSON or not."""
    return _dump(_replaced(document, place, _MARK)).replace(_dump(_MARK), text)


def _edited(document: Any, place: Place, edit: Callable[[Any, Any], None]) -> str:
    """Returns the document after an edit of the list or object around a place."""
    container = value_at(document, place[:-1]).copy()
    edit(container, place[-1])
    return _dump(_replaced(document, place[:-1], container))


def _take_out(container: Any, key: Any) -> None:
    del container[key]


def _rename(container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    else:
        container.insert(key, container[key])


def _repeat(document: Any, place: Place, times: int) -> str:
    value = value_at(document, place)
    if isinstance(value, str | list):
        return _dump(_replaced(document, place, value * times))
    return _dump(_replaced(document, place, [value] * times))


def _twice(document: Any, place: Place) -> str:
    """Returns a document in which the object around a place has the key twice."""
    container, key = value_at(document, place[:-1]), place[-1]
    if not isinstance(container, dict):
        return _repeat(document, place, 2)
    inner = f"{json.dumps(key)}: null, {_dump(container)[1:]}"
    return _as_text(document, place[:-1], "{" + inner)


JsonChange = Callable[[Any, Place, list[Place], random.Random], str]
"""Takes the document, a place, all places and a source of numbers."""

JSON_CHANGES: dict[str, JsonChange] = {
    "another value": lambda document, at, places, draw: _dump(
        _replaced(document, at, draw.choice(VALUES))
    ),
    "a huge number": lambda document, at, places, draw: _as_text(document, at, draw.choice(HUGE)),
    "taken out": lambda document, at, places, draw: _edited(document, at, _take_out),
    "renamed": lambda document, at, places, draw: _edited(document, at, _rename),
    "given twice": lambda document, at, places, draw: _twice(document, at),
    "swapped": lambda document, at, places, draw: _dump(
        _replaced(document, at, value_at(document, draw.choice(places)))
    ),
    "repeated": lambda document, at, places, draw: _repeat(document, at, draw.choice((2, 1000))),
    "in lists": lambda document, at, places, draw: _as_text(
        document, at, nested(draw.choice(DEPTHS))
    ),
    "in objects": lambda document, at, places, draw: _as_text(
        document, at, nested(draw.choice(DEPTHS), '{"a":[', "]}")
    ),
}
"""Ways to damage a document at a place, by their names."""
