"""The table of targets: its names of code lead somewhere, and its providers are the backends'."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields

import msgspec
import pytest

from dipgo.common.lazy import import_name
from dipgo.engines.onnxruntime import openvino
from dipgo.engines.onnxruntime.session import PROVIDERS
from dipgo.engines.targets import (
    DEFAULT_TARGET,
    TARGETS,
    Target,
    any_of,
    build_targets,
    run_targets,
    target_to_export,
)
from dipgo.engines.tensorrt.library import LIBRARIES
from dipgo.ir.manifest.engines import TargetName

CODE = [
    (row.name, field.name)
    for row in TARGETS.values()
    for field in fields(Target)
    if ":" in str(getattr(row, field.name))
]


@pytest.mark.parametrize(("name", "field"), CODE)
def test_names_of_code_lead_somewhere(name: str, field: str) -> None:
    assert callable(import_name(getattr(TARGETS[name], field)))


@pytest.mark.parametrize("row", TARGETS.values(), ids=lambda row: row.name)
def test_rows_are_whole(row: Target) -> None:
    assert TARGETS[row.name] is row
    assert row.title
    assert row.providers or not row.backend
    assert row.backend or not (row.threads or row.package or row.builder)
    assert bool(row.finish) == bool(row.contents)


def test_providers_are_those_of_the_backends() -> None:
    assert TARGETS[DEFAULT_TARGET].providers == tuple(PROVIDERS)
    assert TARGETS["openvino"].providers == tuple(openvino.PRECISIONS)
    assert build_targets() == tuple(LIBRARIES)
    assert set(build_targets()) <= set(run_targets())


def test_what_openvino_runs_is_exported_for_it() -> None:
    for provider in PROVIDERS:
        expected = "openvino" if provider in openvino.PRECISIONS else DEFAULT_TARGET
        assert target_to_export(DEFAULT_TARGET, provider) == expected
    assert target_to_export("torch", None) == "torch"


def test_names_as_a_sentence_has_them() -> None:
    assert [any_of("a"), any_of("ab"), any_of("abc")] == ["a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("name", "valid"), [("plain", True), ("", False), ("../torch", False), ("a\x1b[2J", False)]
)
def test_which_targets_there_are_is_no_part_of_the_file_format(name: str, valid: bool) -> None:
    with nullcontext() if valid else pytest.raises(msgspec.ValidationError):
        assert msgspec.convert(name, TargetName) == name
