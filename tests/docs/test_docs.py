"""The documentation names what there is: modules, commands, options, files, targets of make."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipgo.__main__ import COMMANDS
from dipgo.models.registry import find_presets
from scripts.generate.cli_reference import parser_of
from scripts.generate.python_reference import PUBLIC, define, public_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
EXISTING = [page for page in PAGES if not page.name.startswith("add-a-")]
"""Pages that name what there is; the others say how to write modules, and have tests that do."""
MOST_LINES_OF_README = 130
FIRST_SCREEN = 30
"""Lines of the README within which a stranger must see the gain and how to get it."""

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:-m dipgo\.|(?:^|\s)dipgo )([a-z]+)\b([^|&;#]*)")
DOTTED = re.compile(r"`(dipgo(?:\.\w+)+)`")
FILE = re.compile(r"`((?:dipgo|scripts|tests|examples)/[\w/.-]+\.\w+)`")
FORMATS = {"dipgo.subnet", "dipgo.evaluation", "dipgo.plan"}
"""Names of file formats, not of modules."""

GENERATED = {
    "cli.md": ("cli_reference", "cli_page"),
    "modules.md": ("modules_page", "modules_page"),
    "python.md": ("python_reference", "python_page"),
}


@pytest.mark.parametrize("page", GENERATED)
def test_generated_page_is_what_its_generator_writes(page: str) -> None:
    module, function = GENERATED[page]
    code = f"from scripts.generate.{module} import {function}; print({function}(), end='')"
    written = _python(code)
    assert (ROOT / "docs" / "reference" / page).read_text() == written, "run `make docs`"


def test_every_module_has_its_sentence() -> None:
    page = (ROOT / "docs" / "reference" / "modules.md").read_text()
    listed = re.findall(r"^- `([\w.]+)` — .+\.(?: .*)?$", page, re.MULTILINE)
    paths = [path.relative_to(ROOT) for path in (ROOT / "dipgo").rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        ahead.extend(page.parent / target for target in LINK.findall(page.read_text()))
    assert {page.resolve() for page in DOCS} <= reached


def test_pages_that_the_code_names_exist() -> None:
    for folder in ("dipgo", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|json|png)", path.read_text()):
                assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize("page", EXISTING, ids=lambda page: page.name)
def test_modules_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for name in set(DOTTED.findall(text)) - FORMATS:
        assert _is_defined(name), f"{page.name} names {name}"
    for file in FILE.findall(text):
        assert (ROOT / file).exists(), f"{page.name} names {file}"


def _is_defined(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module defines."""
    parts = name.split(".")
    if _is_module(parts):
        return True
    if not _is_module(parts[:-1]):
        return _is_defined(".".join(parts[:-1]))
    try:
        define(parts[-1], ".".join(parts[:-1]))
    except LookupError:
        return False
    return True


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return (path / "__init__.py").exists() or path.with_suffix(".py").exists()


def _calls(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each call of a command in a code block, with its words."""
    blocks = FENCE.findall(page.read_text())
    for code in (code for _, language, code in blocks if language != "python"):
        for line in code.replace("\\\n", " ").splitlines():
            for command, rest in COMMAND.findall(line):
                yield command, shlex.split(rest)


CALLS = [(page, *call) for page in PAGES for call in _calls(page)]


@pytest.mark.parametrize(
    ("page", "command", "words"),
    CALLS,
    ids=[f"{page.name}-{command}" for page, command, _ in CALLS],
)
def test_commands_of_the_pages_have_their_options(
    page: Path, command: str, words: list[str]
) -> None:
    assert command in COMMANDS
    options = {option for action in parser_of(command)._actions for option in action.option_strings}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= options


def test_the_readme_shows_the_commands_of_a_person_with_a_pipeline() -> None:
    first_screen = "\n".join(README.splitlines()[:FIRST_SCREEN])
    for text in ("docs/images/demo.png", "pip install", *map("-m dipgo.{} ".format, _THREE)):
        assert text in first_screen, text
    assert {command for command, _ in _calls(ROOT / "README.md")} >= set(_THREE)


_THREE = ("search", "export", "run")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES_OF_README


def test_pages_name_presets_of_the_program() -> None:
    """tests/docs/test_families_page.py compares those of families; adding one makes a preset."""
    named = {name for page in PAGES if page.name != "add-a-family.md" for name in _presets(page)}
    assert named <= {*find_presets(), "NAME"}


def test_the_readme_or_a_page_it_links_to_names_every_preset() -> None:
    linked = [ROOT / target for target in LINK.findall(README) if target.endswith(".md")]
    named = {name for page in (ROOT / "README.md", *linked) for name in _presets(page)}
    assert set(find_presets()) <= named


def _presets(page: Path) -> list[str]:
    return re.findall(r"arch:([\w-]+)", page.read_text())


def _python_blocks() -> Iterator[tuple[str, str]]:
    """Yields the Python of pages for users; docs/internals writes modules of dipgo's own."""
    for page in (page for page in PAGES if page.parent.name != "internals"):
        for indent, language, code in FENCE.findall(page.read_text()):
            if language == "python":
                yield page.name, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path.name, path.read_text()


IMPORTING = [block for block in _python_blocks() if "dipgo" in block[1]]


@pytest.mark.parametrize(("name", "code"), IMPORTING, ids=[name for name, _ in IMPORTING])
def test_pages_and_examples_use_public_names_only(name: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dipgo":
            assert node.module in PUBLIC
            assert {alias.name for alias in node.names} <= set(public_names(node.module))
        if isinstance(node, ast.Import):
            ours = {alias.name for alias in node.names if alias.name.split(".")[0] == "dipgo"}
            assert ours <= set(PUBLIC)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in PUBLIC:
            package = ast.unparse(node.value)
            is_package = f"{package}.{node.attr}" in PUBLIC
            assert is_package or node.attr in public_names(package), ast.unparse(node)


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_there(package: str) -> None:
    module = importlib.import_module(package)
    for name in public_names(package):
        assert getattr(module, name) is not None


def test_a_name_that_is_not_public_is_an_error() -> None:
    for package in PUBLIC:
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = importlib.import_module(package).nothing


def test_targets_of_make_exist() -> None:
    named = re.findall(r"\bmake ([a-z-]+)(?=\s*(?:`|#|$))", README, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(named)
    assert set(named) <= set(targets)


def test_the_changelog_has_the_version() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f'__version__ = "{version}"' in (ROOT / "dipgo" / "common" / "version.py").read_text()


def test_the_subnet_of_the_reference_is_one(tmp_path: Path) -> None:
    from dipgo.ir.subnet.subnet import SubNet

    page = (ROOT / "docs" / "reference" / "subnet.md").read_text()
    (block,) = (code for _, language, code in FENCE.findall(page) if language == "json")
    (tmp_path / "subnet.json").write_text(block)
    assert SubNet.load(tmp_path / "subnet.json").gates.shape == (4, 5)


def _python(code: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
