"""Remedies work: command lines in the sources have options that exist, extras are the project's.

By the code of 3bfeb0e: `pip install dipgo[cpu]` is unquoted for some shells, and on no index.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipgo.__main__ import COMMANDS
from dipgo.common.kinds import FILES, FORMATS, REMEDIES
from dipgo.common.packages import install
from dipgo.ir.manifest.records import FORMAT, MANIFEST_FILE
from dipgo.ir.subnet import file as subnet_file
from dipgo.models.pipeline_files import INDEX
from scripts.generate.cli_reference import parser_of

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = sorted((ROOT / "dipgo").rglob("*.py"))
COMMAND = re.compile(r"python -m dipgo\.(\w+)([^;,)\"]*)")


def _texts(path: Path) -> Iterator[str]:
    """Every text of a module, f-strings with a word where a value goes, without docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "VALUE"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield "" if "\n" in node.value else node.value


TEXTS = [(path.relative_to(ROOT).as_posix(), text) for path in SOURCES for text in _texts(path)]
LINES = [(path, *match) for path, text in TEXTS for match in COMMAND.findall(text)]
LINES = [line for line in LINES if line[1] in COMMANDS]


@pytest.mark.parametrize(("path", "command", "rest"), LINES)
def test_a_command_line_has_options_that_there_are(path: str, command: str, rest: str) -> None:
    known = {flag for action in parser_of(command)._actions for flag in action.option_strings}
    assert set(re.findall(r"--[\w-]+", rest)) <= known, path


@pytest.mark.parametrize("remedy", REMEDIES.values())
def test_a_remedy_for_another_kind_of_path_is_parsed_by_its_command(remedy: str) -> None:
    for command, rest in COMMAND.findall(remedy.format(path="'a b'")):
        words = re.sub(r" (shows|says).*", "", rest).replace("'a b'", "path").split()
        parser_of(command).parse_args(words)


def test_extras_are_those_of_the_project() -> None:
    named = [
        extra
        for _, text in TEXTS
        for extras in re.findall(r"(?:dipgo|\.)\[([a-z,-]+)\]", text)
        for extra in extras.split(",")
    ]
    assert set(named) <= set(EXTRAS)
    for path in SOURCES:
        for extras in re.findall(r'(?:install\(|extras=)"([a-z,-]+)"', path.read_text()):
            assert set(extras.split(",")) <= set(EXTRAS), path


def test_dipgo_is_installed_as_the_readme_does() -> None:
    """From a checkout, quoted: no source names it as if an index had it."""
    assert install("cpu,export,search").split(" in ")[0] in (ROOT / "README.md").read_text()
    assert not [path for path, text in TEXTS if re.search(r"pip install '?dipgo", text)]


def test_kinds_of_paths_are_those_of_the_formats() -> None:
    assert set(FORMATS.values()) == {FORMAT, subnet_file.FORMAT}
    assert set(FILES.values()) == {MANIFEST_FILE, INDEX}
