"""The JSON Schemas of the manifests: what is committed, what it takes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from scripts.generate.manifest_schema import PATH, TITLES, schema_text
from tests.support.sample_exports import NAMES

REMOVED = object()
DAMAGES = {
    "another format": (("format",), "dipgo.subnet"),
    "a later version": (("version",), 3),
    "no program": (("program",), REMOVED),
    "an unknown field": (("program", "color"), "red"),
    "two outputs": (("outputs",), [{"name": name, "type": "f32[]"} for name in "ab"]),
    "a file outside": (("segments", 0, "file"), "../seg0.onnx"),
    "an unknown element type": (("inputs", 0, "type"), "f31[1]"),
    "an empty dimension": (("inputs", 0, "type"), "f32[0,4]"),
    "a fraction of a byte": (("program", "slots", 0, "offset"), 0.5),
    "a slot before the arena": (("program", "slots", 0, "offset"), -64),
    "a step before the prologue": (("program", "statements", 0, "step"), -2),
    "an unknown statement": (("program", "statements", 0, "op"), "goto"),
    "a call without results": (("program", "statements", 0, "results"), REMOVED),
    "a sum of nothing": (("program", "statements", -1, "coefficients"), []),
    "a gate between 0 and 1": (("program", "steps", 0, "gates"), "1x"),
}


def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(PATH.read_text()))


def _manifest(export: Path) -> Any:
    return json.loads((export / "plan.json").read_bytes())


@pytest.mark.parametrize("path", TITLES, ids=lambda path: path.name)
def test_committed_schema_is_that_of_the_records(
    path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-golden"):
        path.write_text(schema_text(path), encoding="utf-8")
    told = f"{path.name}: run scripts/generate/manifest_schema.py"
    assert path.read_text(encoding="utf-8") == schema_text(path), told


@pytest.mark.parametrize("path", TITLES, ids=lambda path: path.name)
def test_schema_is_one(path: Path) -> None:
    Draft202012Validator.check_schema(json.loads(schema_text(path)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_manifests_of_exports_are_valid(sample_exports: dict[str, Path], name: str) -> None:
    errors = [error.message for error in _validator().iter_errors(_manifest(sample_exports[name]))]
    assert errors == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_manifests_are_not(sample_exports: dict[str, Path], damage: str) -> None:
    manifest = _manifest(sample_exports["dense"])
    (*path, last), value = DAMAGES[damage]
    place = manifest
    for key in path:
        place = place[key]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    assert not _validator().is_valid(manifest)
