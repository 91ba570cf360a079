"""Reading and writing the manifest; what is read has been checked, its plan included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dipgo.common.errors import DipgoError
from dipgo.common.typed_json import decode_json, read_file
from dipgo.ir.manifest.convert import plan_of
from dipgo.ir.manifest.records import (
    FORMAT,
    MANIFEST_FILE,
    REMEDY,
    VERSION,
    Manifest,
    manifest_file,
)
from dipgo.ir.plan.plan import Plan, value_types
from dipgo.ir.plan.verify import verify


def encode(manifest: Manifest) -> bytes:
    """Indented JSON; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


class _Head(msgspec.Struct):
    """What is read first, to tell what the rest must be."""

    format: str = ""
    version: int = 0


def read_manifest(directory: Path, size: str = "") -> Manifest:
    """The manifest of an export directory, or that for one of its further sizes; verified.

    Raises DipgoError where the directory is not an export of this version or its plan is broken.
    """
    path = directory / manifest_file(size)
    content = read_file(path, expected="the manifest of an export directory")
    head = decode_json(content, _Head, name=str(path), remedy=REMEDY)
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
    """Between the manifest's parts, as far as the plan's own verifier cannot see them."""
    if manifest.inputs != manifest.program.inputs:
        yield "inputs that are not those of the program"
    if "latents" not in {value.name for value in plan.inputs}:
        yield "no input `latents`"
    if {len(step.gates) for step in plan.steps} != {len(plan.blocks)}:
        yield f"steps whose gates are not {len(plan.blocks)}, one a block"
    unplaced = set(value_types(plan)) - {value.name for value in plan.inputs}
    for name in sorted(unplaced - {slot.value for slot in plan.slots}):
        yield f"no slot for %{name}"
    arena_nbytes = manifest.program.arena_nbytes
    if arena_nbytes != plan.arena_nbytes:
        yield f"an arena of {arena_nbytes} bytes for slots that end at {plan.arena_nbytes}"
    given = {name for one in manifest.tokenizers for name in (one.ids, one.mask)}
    encoder = manifest.parts.get("text_encoder")
    for record in encoder.inputs if encoder else ():
        if record.name not in given:
            yield f"a text encoder whose input {record.name} no tokenizer gives"


def _damaged(path: Path, problem: str) -> DipgoError:
    return DipgoError(str(path), found=problem, expected="a valid manifest", remedy=REMEDY)


def is_export(path: Path) -> bool:
    return has_format(path / MANIFEST_FILE, FORMAT)


def has_format(manifest: Path, name: str) -> bool:
    if not manifest.is_file():
        return False
    with manifest.open("rb") as file:
        return f'"{name}"'.encode() in file.read(1000)
