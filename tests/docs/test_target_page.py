"""docs/internals/add-a-target.md: what it adds, by one module and one row, every command takes."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import dipgo.bench
import dipgo.build
import dipgo.engines
import dipgo.export.__main__ as export_command
import dipgo.run.__main__ as run_command
from dipgo.common.errors import DipgoError
from dipgo.engines.targets import TARGETS, Target
from dipgo.export import export

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "internals" / "add-a-target.md").read_text()
MODULE, ROW, USE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(COMMANDS,) = re.findall(r"```\n(python -m .*?)```", PAGE, re.DOTALL)
NAME = "plain"
MAINS: dict[str, Callable[[list[str]], None]] = {
    "dipgo.export": export_command.main,
    "dipgo.run": run_command.main,
    "dipgo.bench": dipgo.bench.main,
}
TOLERANCE = 1e-5
"""Relative to the largest number: the same kernels, on memory that lies elsewhere."""


@pytest.fixture
def _added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's folder, beside those of `dipgo.engines`, and its row."""
    folder = tmp_path / "engines" / NAME
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""A target."""\n')
    (folder / "backend.py").write_text(MODULE)
    paths = [*dipgo.engines.__path__, str(folder.parent)]
    monkeypatch.setattr(dipgo.engines, "__path__", paths)
    row = eval(ROW, {"Target": Target})
    assert row.name == NAME
    monkeypatch.setitem(TARGETS, NAME, row)
    yield
    for module in [name for name in sys.modules if name.startswith(f"dipgo.engines.{NAME}")]:
        del sys.modules[module]


@pytest.mark.slow
@pytest.mark.usefixtures("_added")
def test_commands_of_the_page(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand there, then the page's call of `load`, compared with ONNX Runtime's target."""
    (tmp_path / "M").symlink_to(tiny_pipeline)
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line) for line in COMMANDS.splitlines()]
    assert [module for _, _, module, *_ in lines] == list(MAINS)
    for _, _, module, *arguments in lines:
        MAINS[module](arguments)
    assert (tmp_path / "out.png").stat().st_size
    (tmp_path / "use.py").write_text(USE)
    names = runpy.run_path("use.py")
    expected = dipgo.engines.load("OUT").run(names["inputs"])["latents"]
    assert np.abs(names["latents"] - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert names["runner"].times.segments


@pytest.mark.usefixtures("_added")
@pytest.mark.parametrize("name", MAINS)
def test_help_names_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        MAINS[name](["--help"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "--target TARGET  " in line)
    assert NAME in line


@pytest.mark.usefixtures("_added")
def test_errors_name_it(tiny_pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(DipgoError) as caught:
        export(tiny_pipeline, "dense", tmp_path / "no", steps=1, target="tpu")
    assert NAME in caught.value.expected
    out = export(tiny_pipeline, "dense", tmp_path / "out", steps=1, target=NAME)
    with pytest.raises(DipgoError) as caught:
        dipgo.engines.load(out, target="tpu")
    assert NAME in caught.value.expected
    with pytest.raises(DipgoError, match=f"^provider cuda: found .* target {NAME}; .*cpu"):
        dipgo.engines.load(out, target=NAME, provider="cuda")
    with pytest.raises(DipgoError, match=f"^target {NAME}: found .*no engines are built"):
        dipgo.build.main([str(out), "--target", NAME])


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_in_the_table_of_targets_md(name: str) -> None:
    assert f"\n| `{name}` |" in (DOCS / "guide" / "targets.md").read_text()
