"""Finds the private names of libraries in source files: what no library promises to keep."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

WORD = re.compile(r"(?<![\w.`])(?:[A-Za-z]\w*\.)*_[a-z]\w*(?:\.\w+)*(?![\w`])")
"""In a string: `_name`, alone or in a dotted path."""


def is_private(name: str) -> bool:
    """Whether it has one underscore in front."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined_names(trees: Iterable[ast.AST]) -> set[str]:
    """Returns all names that the sources themselves define: functions, classes, attributes."""
    names: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return names


def private_names(tree: ast.AST, own: set[str]) -> Iterator[tuple[int, str]]:
    """Yields line and name of each private attribute, import and string that is not our `own`."""
    documentation = set(_documentation(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            paths = WORD.findall(node.value) if isinstance(node.value, str) else []
            names = [part for path in paths for part in path.split(".")]
        else:
            continue
        yield from ((node.lineno, name) for name in names if is_private(name) and name not in own)


TO_BE_REPLACED = {"sys.unraisablehook"}
"""What Python documents as a place for one's own function."""


def replaced_members(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields each assignment to a member of a module that is imported: monkeypatching."""
    modules = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        name = ast.unparse(node) if stored else ""
        if name.split(".")[0] in modules and name not in TO_BE_REPLACED:
            yield node.lineno, name


def _documentation(tree: ast.AST) -> Iterator[int]:
    """Docstrings, and strings that stand alone below what they describe."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield id(node.value)


def read(path: Path) -> ast.Module:
    """Returns the syntax tree of a file."""
    return ast.parse(path.read_text())
