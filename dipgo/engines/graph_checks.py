"""Checks that an export's graphs are what its manifest says, before anything runs them.

Engines bind memory by the manifest. A graph with other inputs and outputs would fail in the middle
of a run; one whose weights are in another file would read what no hash covers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dipgo.common.errors import DipgoError
from dipgo.engines.graph_file import LENGTH, LOCATION, OFFSET, GraphFile, GraphValue, read_graph
from dipgo.ir.manifest.records import (
    REMEDY,
    WEIGHTS_FILE,
    Manifest,
    SegmentRecord,
    TensorRecord,
)
from dipgo.ir.types import COMBINE_FILES, ELEMENT_TYPES, TensorType

Shape = tuple[int | None, ...]
"""Sizes of axes; None for one that may have any."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An input or output as the manifest has it."""

    name: str
    dtype: str
    shape: Shape


def check_graph(path: Path, inputs: Sequence[Expected], outputs: Sequence[Expected]) -> None:
    """Checks a graph whose weights are in the file next to it.

    Args:
        path: The graph, a file of the size that the manifest has.
        inputs: What it may read; it may do without some.
        outputs: What it returns, all of it.

    Raises:
        DipgoError: It is no graph, or has other inputs or outputs, weights elsewhere, or what no
            export needs.
    """
    try:
        facts = read_graph(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, f"no ONNX graph ({error})", "one") from None
    for unusual in facts.unusual:
        raise _damaged(path, unusual, "standard operators, one after another")
    for problem in _misplaced(facts, (path.parent / WEIGHTS_FILE).stat().st_size):
        raise _damaged(path, problem, f"weights in {WEIGHTS_FILE}")
    for problem in (*_unlike(facts.inputs, inputs, "input"), *_missing(facts, outputs)):
        raise _damaged(path, problem, "inputs and outputs as in the manifest")


def _misplaced(facts: GraphFile, nbytes: int) -> Iterator[str]:
    """Yields places of weights that are not within the file of that size."""
    for place in facts.external:
        if place.get(LOCATION) != WEIGHTS_FILE:
            yield f"weights in {place.get(LOCATION)!r}"
        offset, length = (place.get(key, "0") for key in (OFFSET, LENGTH))
        if not all(number.isascii() and number.isdigit() for number in (offset, length)):
            yield f"weights at {offset!r} of length {length!r}"
        elif len(offset + length) > 38 or int(offset) + int(length) > nbytes:
            yield f"weights at {offset} of length {length}, in a file of {nbytes}"


def _missing(facts: GraphFile, outputs: Sequence[Expected]) -> Iterator[str]:
    yield from _unlike(facts.outputs, outputs, "output")
    for name in sorted({value.name for value in outputs} - {value.name for value in facts.outputs}):
        yield f"no output {name}"


def _unlike(found: Sequence[GraphValue], expected: Sequence[Expected], noun: str) -> Iterator[str]:
    """Yields what differs in values of the graph from those that are expected."""
    known = {value.name: value for value in expected}
    if len({value.name for value in found}) != len(found):
        yield f"two {noun}s of one name"
    for value in found:
        if value.name not in known:
            yield f"the {noun} {value.name}, which the manifest has not"
        else:
            wanted = known[value.name]
            if value.element != ELEMENT_TYPES[wanted.dtype].onnx:
                yield f"the {noun} {value.name} of another type than {wanted.dtype}"
            if not _fits(value.shape, wanted.shape):
                yield f"the {noun} {value.name} {_text(value.shape)}, not {_text(wanted.shape)}"


def _fits(found: Shape | None, wanted: Shape) -> bool:
    if found is None:
        return True
    return len(found) == len(wanted) and all(
        None in (size, other) or size == other for size, other in zip(found, wanted, strict=True)
    )


def _text(shape: Shape | None) -> str:
    return f"[{','.join('?' if size is None else str(size) for size in shape or ())}]"


def check_graphs(path: Path, manifest: Manifest, combined: Sequence[str]) -> None:
    """Checks all graphs of an export.

    Args:
        path: The export directory.
        manifest: Its manifest, of any size.
        combined: The element types of the plan's linear combinations.

    Raises:
        DipgoError: As for `check_graph`.
    """
    for segment in manifest.segments:
        check_graph(path / segment.file, _inputs_of(segment), _outputs_of(segment))
    for part in manifest.parts.values():
        check_graph(path / part.file, _values(part.inputs), _values(part.outputs))
    for dtype in combined:
        check_graph(path / COMBINE_FILES[dtype], *_combination(dtype))


def _inputs_of(segment: SegmentRecord) -> list[Expected]:
    return [
        _laned(value) if value.name in segment.stacked else value
        for value in _values(segment.inputs)
    ]


def _outputs_of(segment: SegmentRecord) -> list[Expected]:
    outputs = _values(segment.outputs)
    return list(map(_laned, outputs)) if segment.stacked else outputs


def _laned(value: Expected) -> Expected:
    return Expected(value.name, value.dtype, (None, *value.shape))


def _values(records: Sequence[TensorRecord]) -> list[Expected]:
    types = [(record.name, TensorType.parse(record.type)) for record in records]
    return [Expected(name, each.dtype, each.shape) for name, each in types]


def _combination(dtype: str) -> tuple[list[Expected], list[Expected]]:
    """Returns the inputs and outputs of the graph a x + b y."""
    values = [Expected(name, dtype, (None,)) for name in "xy"]
    coefficients = [Expected(f"{name}_coefficient", "f32", ()) for name in "xy"]
    return values + coefficients, [Expected("sum", dtype, (None,))]


def _damaged(path: Path, found: str, expected: str) -> DipgoError:
    return DipgoError(str(path), found=found, expected=expected, remedy=REMEDY)
