"""Writes docs/reference/python.md: the public names, from their docstrings and signatures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "python.md"
PUBLIC = (
    *("dipgo", "dipgo.export", "dipgo.engines", "dipgo.search", "dipgo.evaluate"),
    *("dipgo.models", "dipgo.schedules", "dipgo.ir", "dipgo.compiler"),
)
"""The packages whose `__all__` is the public surface."""
HEAD = """# Python

The public names of dipgo are those in the `__all__` of the packages below. What is not in an
`__all__` may change with any version. Importing a package loads neither PyTorch nor diffusers; a
name that needs them loads them when it is first used.

This page is generated from the docstrings: `python -m scripts.generate.python_reference`.
"""
SECTION = re.compile(r"(Args|Raises|Returns|Yields|Source|Attributes):$")
Definition: TypeAlias = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def python_page() -> str:
    """Returns the whole page."""
    return "\n".join((HEAD, *(_package(package) for package in PUBLIC if public_names(package))))


def public_names(package: str) -> tuple[str, ...]:
    """Returns the names in the `__all__` of a package, without importing it."""
    for node in _tree(package).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    return ()


def _package(package: str) -> str:
    about = (ast.get_docstring(_tree(package)) or "").split("\n\n")[0]
    entries = (_entry(name, package) for name in public_names(package))
    return "\n".join((f"## `{package}`", "", about, "", *entries))


def _entry(name: str, package: str) -> str:
    node, docstring = define(name, package)
    lines = [f"### `{package}.{name}`", ""]
    if not isinstance(node, ast.ClassDef) or _fields(node):
        lines.extend(("```python", _signature(node), "```", ""))
    lines.extend((_prose(docstring), ""))
    if isinstance(node, ast.ClassDef):
        lines.extend(_methods(node))
    return "\n".join(lines)


def _methods(node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not re.match(r"_(?!_call__)", member.name):
            prose = _prose(ast.get_docstring(member) or "")
            yield from ("```python", _signature(member), "```", "", prose, "")


def define(name: str, module: str) -> tuple[Definition, str]:
    """Returns the node that defines a name in a module, and its docstring; follows re-exports."""
    tree = _tree(module)
    for position, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and _assigned(node) == name:
            return node, _text_at(tree.body[position + 1 : position + 2])
    for imported in ast.walk(tree):
        if isinstance(imported, ast.ImportFrom) and name in {a.name for a in imported.names}:
            return define(name, imported.module or "")
    raise LookupError(f"{module} does not define {name}")


def _text_at(nodes: list[ast.stmt]) -> str:
    """Returns the string below a constant, from the statements there: none or one."""
    values = (node.value for node in nodes if isinstance(node, ast.Expr))
    return "".join(str(value.value) for value in values if isinstance(value, ast.Constant))


def _assigned(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        return "\n".join((f"class {node.name}:", *(f"    {field}" for field in _fields(node))))
    if not isinstance(node, ast.FunctionDef):
        value = ast.unparse(node.value) if node.value else ""
        return f"{_assigned(node)} = {value if len(value) < 80 else '…'}"
    decorators = [f"@{ast.unparse(name)}\n" for name in node.decorator_list]
    head = "".join(text for text in decorators if text in ("@classmethod\n", "@property\n"))
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"def {node.name}({ast.unparse(node.args)}){result}"
    return head + (line if len(line) <= 100 else _broken(node, result))


def _broken(node: ast.FunctionDef, result: str) -> str:
    """Returns a signature with one parameter a line."""
    arguments = re.split(r", (?![^\[\(]*[\]\)])", ast.unparse(node.args))
    return f"def {node.name}(\n" + "".join(f"    {text},\n" for text in arguments) + f"){result}"


def _fields(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(member) for member in node.body if isinstance(member, ast.AnnAssign)]


def _prose(docstring: str) -> str:
    """Returns a docstring as Markdown: sections in Google form become lists."""
    lines: list[str] = []
    in_section = False
    for line in docstring.splitlines():
        if SECTION.match(line):
            in_section = True
            lines.extend((f"**{line[:-1]}**", ""))
        elif in_section and re.match(r"    \S", line):
            name, colon, text = line.strip().partition(": ")
            is_named = colon and " " not in name
            lines.append(f"- `{name}`: {text}" if is_named else f"- {line.strip()}")
        elif in_section and line.strip():
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())


if __name__ == "__main__":
    PAGE.write_text(python_page(), encoding="utf-8")
