"""Reads and writes the SubNet file: a JSON document as typed structs."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.typed_json import decode_json, read_file, write_text
from dipgo.ir.fitted import Fitted
from dipgo.ir.subnet.gap_rules import gap_keys

FORMAT = "dipgo.subnet"

VERSION = 1

REMEDY = "fix the file, or write it again with SubNet.save"

ROW_PER_LINE = ("gates", "scores")
"""Keys whose rows have a line each; those of gap rules have too."""


class ModelRef(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The model that the gates are for; a file written by hand may lack the hash."""

    class_name: str = msgspec.field(name="class")
    config_sha256: str | None = None


class SchedulerRef(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The scheduler that the timesteps come from, with its config if it is known."""

    class_name: str = msgspec.field(name="class")
    config: dict[str, Any] | None = None


class PriorNoiseRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Initial noise to add again, `scale` times, at every timestep under `below`."""

    scale: float
    below: float


class Header(msgspec.Struct):
    """The keys that are read first, whatever else the document holds."""

    format: str
    version: int


class Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The document: keys, their order and their types as in the file.

    The keys of gap rules come after `gates`: the rules have their types (`GapRule.keys`).
    """

    format: str = FORMAT
    version: int = VERSION
    model: ModelRef | None = None
    scheduler: SchedulerRef | None = None
    num_inference_steps: int
    timesteps: list[float]
    blocks: list[str]
    backup: str | list[str] = "output"
    gates: list[str]
    prior_noise: PriorNoiseRef | None = None
    fitted: Fitted | None = None
    scores: list[list[float]] | None = None
    provenance: dict[str, Any] | None = None


def read_document(path: Path) -> tuple[Document, dict[str, Any]]:
    """Returns the document at `path`, and the values of the keys of gap rules.

    Raises:
        DipgoError: The file is missing, not JSON, of another version, or has wrong types.
    """
    data = read_file(path, expected="a SubNet file")
    header = decode_json(data, Header, name=path.name, remedy=REMEDY, keys_once=False)
    _check_header(header, path.name)
    keys = gap_keys()
    document = decode_json(data, _with_keys(tuple(keys.items())), name=path.name, remedy=REMEDY)
    return document, {key: getattr(document, key) for key in keys}


@cache
def _with_keys(keys: tuple[tuple[str, Any], ...]) -> type[Document]:
    """Returns the type of a document that may have these keys too, with their types."""
    fields = [(key, cls | None, None) for key, cls in keys]
    made = msgspec.defstruct(
        "Document", fields, bases=(Document,), kw_only=True, forbid_unknown_fields=True
    )
    assert issubclass(made, Document)
    return made


def write_document(path: Path, document: Document, gaps: Mapping[str, Any]) -> None:
    """Writes the document in one step; the same document gives the same bytes.

    Args:
        path: The file.
        document: The document.
        gaps: The keys and values of gap rules.

    Raises:
        DipgoError: The file cannot be written, or the document has a value that JSON lacks.
    """
    write_text(path, format_document(document, gaps))


def format_document(document: Document, gaps: Mapping[str, Any]) -> str:
    """Returns the document as readable JSON: one key a line, one row of gates or scores a line.

    Raises:
        DipgoError: The document has a value that JSON lacks.
    """
    fields: dict[str, Any] = {}
    for key in Document.__struct_fields__:
        fields[key] = getattr(document, key)
        if key == "gates":
            fields |= gaps
    lines = [
        f"  {json.dumps(key)}: {_format_field(key, value, key in ROW_PER_LINE or key in gaps)}"
        for key, value in fields.items()
        if value is not None
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def parse_gates(rows: Sequence[str], blocks: Sequence[str]) -> NDArray[np.bool_]:
    """Returns gates bool[steps, blocks] from one text of 0 and 1 a row.

    Raises:
        DipgoError: A row has another length, or another character.
    """
    for index, row in enumerate(rows):
        _check_row(f"gates row {index}", row, blocks)
    bits: NDArray[np.bool_] = np.frombuffer("".join(rows).encode("ascii"), np.uint8) == ord("1")
    return bits.reshape(len(rows), len(blocks))


def parse_scores(rows: Sequence[Sequence[float]], blocks: Sequence[str]) -> NDArray[np.float64]:
    """Returns scores f64[steps, blocks] from one list of numbers a row.

    Raises:
        DipgoError: A row has another length.
    """
    for index, row in enumerate(rows):
        if len(row) != len(blocks):
            raise DipgoError(
                f"scores row {index}",
                found=f"{len(row)} numbers",
                expected=f"{len(blocks)}, one a block",
                remedy="give every block a score in every row, or leave scores out",
            )
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(blocks))


def _check_row(where: str, row: str, blocks: Sequence[str]) -> None:
    if len(row) != len(blocks):
        raise DipgoError(
            where,
            found=f"{len(row)} characters",
            expected=f"{len(blocks)}, one a block",
            remedy="write 1 (compute) or 0 (reuse) for every block",
        )
    if not row.strip("01"):
        return
    for block, character in zip(blocks, row, strict=True):
        if character not in "01":
            raise DipgoError(
                f"{where}, block {block}",
                found=repr(character),
                expected="0 or 1",
                remedy="write 1 to compute the block at this step, 0 to reuse it",
            )


def _check_header(header: Header, name: str) -> None:
    facts: tuple[tuple[str, object, object], ...] = (
        ("format", header.format, FORMAT),
        ("version", header.version, VERSION),
    )
    for key, value, expected in facts:
        if value != expected:
            raise DipgoError(
                f"{name}, {key}",
                found=json.dumps(value),
                expected=json.dumps(expected),
                remedy="use the release of dipgo that wrote the file, or write it again",
            )


def _format_field(key: str, value: Any, row_per_line: bool) -> str:
    try:
        if not row_per_line:
            return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, allow_nan=False)
        rows = [f"    {json.dumps(row, allow_nan=False)}" for row in msgspec.to_builtins(value)]
        return "[\n" + ",\n".join(rows) + "\n  ]"
    except (TypeError, ValueError) as error:
        raise DipgoError(
            f"SubNet, {key}",
            found=f"a value JSON has no word for ({error})",
            expected="finite numbers, texts, lists and dictionaries",
            remedy="leave that value out, or turn it into one of these",
        ) from None
