"""The two sets of libraries, what pyproject.toml admits, and what pip says is newer."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import newer_releases
from scripts.harness import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETS = {"newest": "constraints.txt", "oldest": "constraints-oldest.txt"}
MATRIX = ("torch", "diffusers", "transformers", "huggingface-hub", "onnxruntime")
"""The libraries that README's matrix names."""
OUTDATED = [
    {"name": "huggingface_hub", "version": "2.4.0", "latest_version": "2.5.0"},
    {"name": "torch", "version": "2.13.0+cpu", "latest_version": "2.15.0"},
    {"name": "ruff", "version": "0.17.6", "latest_version": "0.18.0"},
    {"name": "diffusers", "version": "0.42.1", "latest_version": "0.42.1.post1"},
]
PINS = """
# comment
diffusers==0.42.1
huggingface_hub==2.4.0
ruff==0.17.6
torch==2.13.0  # 2.15.0 was tried by hand
"""


def _requirements() -> list[Requirement]:
    """Returns all but dipgo's own extras."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    found = map(Requirement, lines)
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def test_no_library_is_capped() -> None:
    """An upper cap needs a reason, and its place in this test."""
    for requirement in _requirements():
        assert {bound.operator for bound in requirement.specifier} == {">="}, requirement.name


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_admitted(name: str) -> None:
    pins = newer_releases.tried((ROOT / SETS[name]).read_text())
    for requirement in _requirements():
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is not None:
            assert pin in requirement.specifier, requirement.name
    assert newer_releases.watched(PROJECT) <= pins.keys()


def test_the_oldest_are_older() -> None:
    newest, oldest = (newer_releases.tried((ROOT / file).read_text()) for file in SETS.values())
    assert all(oldest[name] <= newest[name] for name in newest.keys() & oldest.keys())
    assert oldest["transformers"].major < newest["transformers"].major


def test_readme_names_both_sets() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    for name in MATRIX:
        (row,) = [line for line in lines if line.startswith(f"| {name} |")]
        _, _, newest, oldest, _ = (cell.strip() for cell in row.split("|"))
        for cell, file in ((newest, SETS["newest"]), (oldest, SETS["oldest"])):
            pins = newer_releases.tried((ROOT / file).read_text())
            assert str(pins[name]) in cell, name


def test_a_release_that_was_not_tried_is_named() -> None:
    names = newer_releases.watched(PROJECT)
    assert "ruff" not in names
    assert newer_releases.warnings_of(OUTDATED, names, newer_releases.tried(PINS)) == [
        "warning: diffusers 0.42.1.post1 is out; 0.42.1 is the newest that was tried",
        "warning: huggingface-hub 2.5.0 is out; 2.4.0 is the newest that was tried",
    ]


@pytest.mark.parametrize("code", ["import sys; sys.exit(1)", "print('[]')"])
def test_no_answer_is_no_warning(
    code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where there is no network: pip fails, or finds nothing newer."""
    run = subprocess.run

    def without_network(command: list[str], **options: Any) -> Any:
        assert command[1:4] == ["-m", "pip", "list"]
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", without_network)
    newer_releases.main([])
    assert capsys.readouterr() == ("", "")


def test_ci_runs_both_sets_and_asks_for_newer_ones() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    stages = [line.split()[1] for line in ci.splitlines() if line.strip().startswith("stage ")]
    assert {"test", "test-oldest-fast"} <= set(stages)
    assert "make newer" in ci
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (folders,) = re.findall(r"^ON_LIBRARIES := (.+)$", makefile, re.MULTILINE)
    assert all((ROOT / folder).is_dir() for folder in folders.split())
