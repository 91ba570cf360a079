"""Reads and writes the manifest; a manifest that is read is checked, and so is its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dipgo.common.errors import DipgoError
from dipgo.common.links import check_within
from dipgo.common.typed_json import decode_json, read_file
from dipgo.ir.manifest.convert import plan_of
from dipgo.ir.manifest.names import name_problems
from dipgo.ir.manifest.records import (
    FORMAT,
    MANIFEST_FILE,
    REMEDY,
    VERSION,
    Manifest,
    TensorRecord,
    manifest_file,
)
from dipgo.ir.plan.nodes import Combine
from dipgo.ir.plan.plan import Plan, combined_dtypes, value_types
from dipgo.ir.plan.verify import verify
from dipgo.ir.types import COMBINE_FILES

MOST_LAUNCHES = 200_000
"""Terms of all linear combinations; a thousand steps of a multistep sampler have some thousands."""


def encode(manifest: Manifest) -> bytes:
    """Returns the manifest as indented JSON; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


class _Head(msgspec.Struct):
    """The fields that decide how the rest of a manifest is read."""

    format: str = ""
    version: int = 0


def read_manifest(directory: Path, size: str = "") -> Manifest:
    """Returns the manifest of an export directory, with its plan verified.

    Args:
        directory: The export directory.
        size: The further size whose manifest to read, or "" for the export's own.

    Raises:
        DipgoError: The directory is no export of this version, or its plan is broken.
    """
    path = directory / manifest_file(size)
    check_within(path, directory)
    content = read_file(path, expected="the manifest of an export directory")
    head = decode_json(content, _Head, name=str(path), remedy=REMEDY, keys_once=False)
    if (head.format, head.version) != (FORMAT, VERSION):
        raise DipgoError(
            str(path),
            found=f"format {head.format!r}, version {head.version}",
            expected=f"format {FORMAT!r}, version {VERSION}",
            remedy="export again with this version of dipgo",
        )
    manifest = decode_json(content, Manifest, name=str(path), remedy=REMEDY)
    try:
        plan = verify(plan_of(manifest))
    except (ValueError, LookupError) as error:
        raise _damaged(path, str(error)) from None
    for problem in _contradictions(manifest, plan):
        raise _damaged(path, problem)
    return manifest


def _contradictions(manifest: Manifest, plan: Plan) -> Iterator[str]:
    """Yields contradictions between the manifest's parts that the plan's verifier cannot see."""
    if manifest.inputs != manifest.program.inputs:
        yield "inputs that are not those of the program"
    if "latents" not in {value.name for value in plan.inputs}:
        yield "no input `latents`"
    if {len(step.gates) for step in plan.steps} != {len(plan.blocks)}:
        yield f"steps whose gates are not {len(plan.blocks)}, one a block"
    unplaced = set(value_types(plan)) - {value.name for value in plan.inputs}
    for name in sorted(unplaced - {slot.value for slot in plan.slots}):
        yield f"no slot for %{name}"
    for dtype in sorted(set(combined_dtypes(plan)) - set(COMBINE_FILES)):
        yield f"linear combinations of {dtype}"
    yield from _problems_of_names(manifest)
    terms = sum(len(each.terms) for each in plan.statements if isinstance(each, Combine))
    if terms > MOST_LAUNCHES:
        yield f"linear combinations of {terms} terms, more than {MOST_LAUNCHES}"
    arena_nbytes = manifest.program.arena_nbytes
    if arena_nbytes != plan.arena_nbytes:
        yield f"an arena of {arena_nbytes} bytes for slots that end at {plan.arena_nbytes}"
    provided = {
        name for tokenizer in manifest.tokenizers for name in (tokenizer.ids, tokenizer.mask)
    }
    encoder = manifest.parts.get("text_encoder")
    for record in encoder.inputs if encoder else ():
        if record.name not in provided:
            yield f"a text encoder whose input {record.name} no tokenizer gives"


def _problems_of_names(manifest: Manifest) -> Iterator[str]:
    """Yields names that cannot all be files, or are given twice."""
    yield from name_problems(manifest.files)
    if len(set(manifest.sizes)) != len(manifest.sizes):
        yield "a size twice"
    combinations = (Path(file).stem for file in COMBINE_FILES.values())
    graphs = [*(segment.name for segment in manifest.segments), *manifest.parts, *combinations]
    yield from name_problems(graphs)
    if len(set(graphs)) != len(graphs):
        yield "two graphs of one name"
    for noun, records in _named_records(manifest):
        if len({record.name for record in records}) != len(records):
            yield f"two of the {noun} of one name"


def _named_records(manifest: Manifest) -> Iterator[tuple[str, Sequence[TensorRecord]]]:
    """Yields the lists of tensors within which each has a name of its own."""
    yield "inputs", manifest.inputs
    for segment in manifest.segments:
        yield f"inputs of {segment.name}", segment.inputs
        yield f"outputs of {segment.name}", segment.outputs
    for name, part in manifest.parts.items():
        yield f"inputs of {name}", part.inputs
        yield f"outputs of {name}", part.outputs


def _damaged(path: Path, problem: str) -> DipgoError:
    return DipgoError(str(path), found=problem, expected="a valid manifest", remedy=REMEDY)


def is_export(path: Path) -> bool:
    """Returns whether `path` is a directory with an export's manifest."""
    return has_format(path / MANIFEST_FILE, FORMAT)


def has_format(manifest: Path, name: str) -> bool:
    """Returns whether a file is a JSON object whose field `format` is `name`."""
    if not manifest.is_file():
        return False
    try:
        content = read_file(manifest, expected="a manifest")
        return decode_json(content, _Head, name=str(manifest), remedy=REMEDY).format == name
    except DipgoError:
        return False
