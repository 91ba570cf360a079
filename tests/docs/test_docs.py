"""The documentation names what there is: modules, commands, options, files, targets of make."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted(set(re.findall(r"python -m (dipgo\.[a-z]+)", README)))
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def test_every_module_has_its_sentence() -> None:
    listed = re.findall(r"^- `([\w.]+)` — .+\.(?: .*)?$", _read("docs/modules.md"), re.MULTILINE)
    paths = [path.relative_to(ROOT) for path in (ROOT / "dipgo").rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_the_options_of_the_readme(command: str) -> None:
    lines = [line for line in README.splitlines() if f"python -m {command}" in line]
    named = {option for line in lines for option in OPTION.findall(line)}
    assert named <= _options(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_has_the_options_of_the_command(command: str) -> None:
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `python -m {command}`"))
    assert _options(command) - {"--help"} <= set(OPTION.findall(row))


@cache
def _options(command: str) -> frozenset[str]:
    result = subprocess.run(
        [sys.executable, "-m", command, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return frozenset(OPTION.findall(result.stdout))


def test_targets_of_make_exist() -> None:
    named = re.findall(r"\bmake ([a-z-]+)(?=\s*(?:`|#|$))", README, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):.*## ", _read("Makefile"), re.MULTILINE)
    assert {"demo", "test"} <= set(named)
    assert set(named) <= set(targets)


def test_the_changelog_has_the_version() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', _read("pyproject.toml"), re.MULTILINE)
    assert f"## [{version}]" in _read("CHANGELOG.md")
    assert f'__version__ = "{version}"' in _read("dipgo/common/version.py")


def test_the_subnet_of_the_readme_is_one(tmp_path: Path) -> None:
    from dipgo.ir.subnet.subnet import SubNet

    (block,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (tmp_path / "subnet.json").write_text(block)
    assert SubNet.load(tmp_path / "subnet.json").gates.shape == (4, 5)


def _read(path: str) -> str:
    return (ROOT / path).read_text()
