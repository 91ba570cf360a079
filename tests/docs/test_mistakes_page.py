"""Each mistake of docs/guide/mistakes.md gives the line that the page says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dipgo.__main__
from dipgo.engines import load
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from tests.support.build_once import build_once

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "mistakes.md").read_text()
LINES: dict[str, str] = dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", PAGE, re.MULTILINE))

COMMANDS: dict[str, list[str]] = {
    "a misspelt option": ["export", "--model", "M", "--stps", "20"],
    "an option cut short": ["export", "--model", "M", "--prec", "fp16"],
    "a misspelt choice": ["search", "--model", "M", "--method", "deepcahe"],
    "a misspelt command": ["exprot", "--model", "M"],
    "a pipeline in place of an export": ["run", "PIPELINE", "--prompt", "a", "--image", "a.png"],
    "an export in place of a SubNet": ["export", "--model", "M", "--subnet", "OUT", "--out", "NEW"],
}
PROGRAMS: dict[str, Callable[[Pipeline], object]] = {
    "other steps than the export has": lambda pipeline: pipeline("a", num_inference_steps=50),
    "moving a pipeline to a device": lambda pipeline: pipeline.to("cuda"),
    "a misspelt argument": lambda pipeline: pipeline("a", guidence_scale=5),
    "an argument of a wrong type": lambda pipeline: load("OUT", threads="2"),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def folder(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline and an export, by the names that the page has."""
    out = build_once(
        tmp_path_factory, "mistakes", lambda path: export(tiny_pipeline, "dense", path, steps=2)
    )
    made = tmp_path_factory.mktemp("mistakes-page")
    (made / "PIPELINE").symlink_to(tiny_pipeline)
    (made / "OUT").symlink_to(out)
    return made


def test_the_page_has_ten() -> None:
    assert LINES.keys() == COMMANDS.keys() | PROGRAMS.keys()
    assert len(LINES) == 10


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_command(
    mistake: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["dipgo", *COMMANDS[mistake]])
    assert dipgo.__main__.main() == 2
    assert capsys.readouterr().err.splitlines()[-1] == LINES[mistake]


@pytest.mark.parametrize("mistake", PROGRAMS)
def test_a_program(mistake: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    pipeline = Pipeline.from_export("OUT", threads=1)
    with pytest.raises(dipgo.DipgoError) as caught:
        PROGRAMS[mistake](pipeline)
    assert str(caught.value) == LINES[mistake]
