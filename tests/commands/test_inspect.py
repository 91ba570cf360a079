"""Damaged exports, as `python -m dipgo.inspect` reports them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dipgo.inspect
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE
from tests.support.refusals import (
    Refused,
    edit_manifest,
    flip_a_byte,
    truncate,
)


def _call(manifest: dict[str, Any]) -> Any:
    return next(one for one in manifest["program"]["statements"] if one["op"] == "call")


def _outside(manifest: dict[str, Any]) -> None:
    manifest["files"]["../x.onnx"] = manifest["files"]["combine.onnx"]


DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no manifest": (
        lambda path: (path / MANIFEST_FILE).unlink(),
        (MANIFEST_FILE, "No such file", "the manifest of an export directory", "check the path"),
    ),
    "truncated manifest": (
        truncate(MANIFEST_FILE, 2000),
        (MANIFEST_FILE, "not JSON", "a whole JSON document", "export again"),
    ),
    "format": (
        edit_manifest(lambda m: m.update(format="floor plan")),
        (MANIFEST_FILE, "'floor plan'", "'dipgo.export'", "export again"),
    ),
    "version": (
        edit_manifest(lambda m: m.update(version=1)),
        (MANIFEST_FILE, "version 1", "version 2", "export again"),
    ),
    "no field": (
        edit_manifest(lambda m: m.pop("program")),
        (MANIFEST_FILE, "no field `program`", "every", "export again"),
    ),
    "a field of another type": (
        edit_manifest(lambda m: m.update(batch="one")),
        (f"{MANIFEST_FILE}, $.batch", "`str`", "`int`", "export again"),
    ),
    "a value never written": (
        edit_manifest(lambda m: _call(m)["operands"].__setitem__(0, "%nothing")),
        (MANIFEST_FILE, "a read of %nothing, which nothing earlier writes", "a valid manifest"),
    ),
    "a row that no table holds": (
        edit_manifest(lambda m: m["program"]["tables"][0]["rows"].pop()),
        (MANIFEST_FILE, "a row that no table holds", "a valid manifest", "export again"),
    ),
    "a segment undeclared": (
        edit_manifest(lambda m: _call(m).update(segment="seg99")),
        (MANIFEST_FILE, "an undeclared callee", "a valid manifest", "export again"),
    ),
    "no slots": (
        edit_manifest(lambda m: m["program"].update(slots=[])),
        (MANIFEST_FILE, "no slot for %", "a valid manifest", "export again"),
    ),
    "a slot before the arena": (
        edit_manifest(lambda m: m["program"]["slots"][0].update(offset=-64)),
        ("$.program.slots[0].offset", "`int` >= 0", "", "export again"),
    ),
    "a shape that is none": (
        edit_manifest(lambda m: m["outputs"][0].update(type="f32[-1]")),
        ("$.outputs[0].type", "", "", "export again"),
    ),
    "gates of another width": (
        edit_manifest(lambda m: m["program"]["steps"][0].update(gates="1")),
        (MANIFEST_FILE, "gates", "a valid manifest", "export again"),
    ),
    "a file outside": (edit_manifest(_outside), (MANIFEST_FILE, "", "", "export again")),
    "a file not listed": (
        edit_manifest(lambda m: m["files"].pop("seg0.onnx")),
        ("seg0.onnx", "without a hash", "an entry under `files`", "export again"),
    ),
    "no segment file": (
        lambda path: (path / "seg0.onnx").unlink(),
        ("seg0.onnx", "no such file", "a file of the export", "export again"),
    ),
    "weights of another size": (
        truncate(WEIGHTS_FILE, 5000),
        (WEIGHTS_FILE, "5000 bytes", "bytes", "export again"),
    ),
    "weights of another hash": (
        flip_a_byte(WEIGHTS_FILE),
        (WEIGHTS_FILE, "sha256", "sha256", "export again"),
    ),
    "a graph of another hash": (
        flip_a_byte("seg0.onnx"),
        ("seg0.onnx", "sha256", "sha256", "export again"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_export(name: str, damaged: Path, refused: Refused) -> None:
    damage, fragments = DAMAGES[name]
    damage(damaged)
    refused(dipgo.inspect.main, [damaged], *fragments)


def test_inspect_of_neither(tmp_path: Path, refused: Refused) -> None:
    for path in (tmp_path / "no", Path(__file__), tmp_path):
        refused(dipgo.inspect.main, [path], path.name, "", "")
