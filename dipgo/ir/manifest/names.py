"""Defines what names, sizes and types an export's manifests may have, for all of their records.

Names of segments and parts become names of files, and those of files are joined to the directory:
none of them may lead out of it, on any system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, TypeAlias

from msgspec import Meta

from dipgo.ir.types import ELEMENT_TYPES, LARGEST

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]

Nbytes: TypeAlias = Annotated[int, Meta(ge=0, lt=LARGEST)]

END = r"(?![\s\S])"
"""Ends a pattern: in Python `$` also matches before a last newline."""

FileName: TypeAlias = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.+=-]{{0,199}}{END}")]
"""The name of a file within the directory, never a path out of it."""

GraphName: TypeAlias = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.+=-]{{0,99}}{END}")]
"""The name of a segment or part: that of its graph and engine without the suffix."""

TensorName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]

Type: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^({'|'.join(ELEMENT_TYPES)})\[([1-9]\d{{0,14}}(,[1-9]\d{{0,14}}){{0,15}})?\]{END}"
    ),
]
"""A tensor type as in the plan's text: `f32[2,77,768]`."""

_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(10)
}
"""Names that are devices on Windows, whatever the suffix."""


def name_problems(names: Iterable[str]) -> Iterator[str]:
    """Yields what is wrong with names that become files of one folder."""
    seen: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded.partition(".")[0] in _DEVICES or name.endswith("."):
            yield f"the name {name}, which is no file's on Windows"
        if folded in seen and seen[folded] != name:
            yield f"the names {seen[folded]} and {name}, which are one where case does not count"
        seen[folded] = name
