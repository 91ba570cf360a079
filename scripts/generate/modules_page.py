"""Writes docs/reference/modules.md: a sentence a module, from their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from scripts.harness import ROOT, run_script, script_parser

PAGE = ROOT / "docs" / "reference" / "modules.md"
HEAD = """# Modules

A sentence a module. The packages stand in the order of their layers: imports point to those above.
This page is generated from the modules' docstrings: `python -m scripts.generate.modules_page`.
"""
LAYERS = (
    *("common", "ir", "engines", "run", "models", "compiler"),
    *("schedules", "search", "export", "evaluate"),
)


def modules_page() -> str:
    """Returns the whole page."""
    sections = [_section(f"`dipgo.{layer}`", ROOT / "dipgo" / layer) for layer in LAYERS]
    commands = sorted((ROOT / "dipgo").glob("*.py"))
    return "\n".join((HEAD, *sections, _rows("Commands and the package itself", commands)))


def _section(title: str, folder: Path) -> str:
    paths = sorted(folder.rglob("*.py"), key=lambda path: (*path.parent.parts, path.stem))
    return _rows(title, paths)


def _rows(title: str, paths: list[Path]) -> str:
    rows = (f"- `{_dotted(path)}` — {_sentence(path)}" for path in paths)
    return "\n".join((f"## {title}", "", *rows, ""))


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} has no docstring"
    return " ".join(docstring.split("\n\n")[0].split())


def main(arguments: list[str]) -> None:
    """Writes the page."""
    script_parser(__file__, __doc__).parse_args(arguments)
    PAGE.write_text(modules_page())


if __name__ == "__main__":
    run_script(main)
