"""Imports point down one list of layers, without a circle, and running an export needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnxscript")
ONNX = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")

# From the bottom to the top: a layer, and the entries of dipgo/ in it. Imports lead to the same
# layer or to one above it in this list. A new entry of dipgo/ needs a place here.
LAYERS = {
    "common": "common",
    "ir": "ir",
    "engines": "engines",
    "run": "run serve",
    "models": "models",
    "compiler": "compiler",
    "schedules": "schedules",
    "search": "search distil",
    "export": "export",
    "evaluate": "evaluate report",
    "commands": "bench build refit inspect __main__",
}
FORESEEN = {"distil", "report", "serve"}
"""Entries that have a place already, and need not be there yet."""
MOST_ENTRIES = 17
"""Beside those."""

APART = {"models": ("engines", "run")}
"""Layers that do not know each other, though one is below the other."""

# What a layer does without. Imports inside functions count too.
WITHOUT = {
    "common": HEAVY,
    "ir": (*HEAVY, "onnx_ir"),
    "engines": (*HEAVY, "onnx_ir"),
    "run": HEAVY,
    "models": ONNX,
    "compiler": ONNX,
    "schedules": HEAVY,
    "commands": HEAVY,
}
EXCEPTIONS = {
    ("common.safe_pickle", "torch"),  # decodes the tensors in a published pickle
    ("common.packages", "diffusers"),  # turns their progress bars off
    ("common.packages", "transformers"),
    ("engines.torch.backend", "torch"),  # the target that is PyTorch
    ("engines.torch.executor", "torch"),
    ("engines.torch.program", "torch"),
    ("engines.torch.program_file", "torch"),
}

LAYER_OF = {entry: layer for layer, entries in LAYERS.items() for entry in entries.split()}
DEPTH = {layer: depth for depth, layer in enumerate(LAYERS)}


def _modules() -> dict[str, Path]:
    """Files by their dotted names below dipgo, without the root package itself."""
    paths = sorted((ROOT / "dipgo").rglob("*.py"))
    dotted = [".".join(path.relative_to(ROOT / "dipgo").with_suffix("").parts) for path in paths]
    named = zip((name.removesuffix(".__init__") for name in dotted), paths, strict=True)
    return {name: path for name, path in named if name != "__init__"}


MODULES = _modules()


def _imports(module: str) -> Iterator[str]:
    """Each name that a module imports when it runs, absolute; not what type checkers alone see."""
    tree = ast.parse(MODULES[module].read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) not in typing_only:
            yield from _names(node)


def _names(node: ast.AST) -> list[str]:
    """`from a import b` is `a.b` where that is a module of ours, else `a`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"line {node.lineno}: imports are absolute"
    assert node.module is not None
    full = {f"{node.module}.{alias.name}" for alias in node.names}
    ours = sorted(name for name in full if name.removeprefix("dipgo.") in MODULES)
    return ours if len(ours) == len(full) else [*ours, node.module]


def _ours(module: str) -> list[str]:
    """The modules below dipgo that a module imports."""
    return [name[len("dipgo.") :] for name in _imports(module) if name.startswith("dipgo.")]


def _layer(module: str) -> str:
    entry = module.split(".")[0]
    assert entry in LAYER_OF, f"give dipgo.{entry} a place in LAYERS"
    return LAYER_OF[entry]


def test_every_entry_of_the_root_has_its_place() -> None:
    names = {path.name for path in (ROOT / "dipgo").iterdir()} - {"__pycache__"}
    entries = {name.removesuffix(".py") for name in names - {"__init__.py", "py.typed"}}
    assert entries <= set(LAYER_OF)
    assert set(LAYER_OF) - entries <= FORESEEN
    assert len(names - FORESEEN) <= MOST_ENTRIES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    layer = _layer(module)
    for imported in map(_layer, _ours(module)):
        assert DEPTH[imported] <= DEPTH[layer], f"dipgo.{module} imports of {imported}"
        assert imported not in APART.get(layer, ()), f"dipgo.{module} imports of {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_layer_does_without(module: str) -> None:
    packages = {name.split(".")[0] for name in _imports(module)}
    packages -= {package for name, package in EXCEPTIONS if name == module}
    assert not packages & set(WITHOUT.get(_layer(module), ()))


def test_no_circle_of_files() -> None:
    _check_acyclic({module: _ours(module) for module in MODULES})


def test_no_circle_of_packages() -> None:
    """Among the packages that share a parent, at every level."""
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        for imported in _ours(module):
            one, other = _siblings(module, imported)
            if one in packages and other in packages and one != other:
                edges.setdefault(one, set()).add(other)
    _check_acyclic(edges)


def _siblings(one: str, other: str) -> tuple[str, str]:
    """The two packages, or modules, of one parent in which two modules lie."""
    parts, others = one.split("."), other.split(".")
    same = 0
    while same < min(len(parts), len(others)) - 1 and parts[same] == others[same]:
        same += 1
    return ".".join(parts[: same + 1]), ".".join(others[: same + 1])


def _check_acyclic(edges: Mapping[str, Iterable[str]]) -> None:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


ENGINES = [name for name in MODULES if name.split(".")[0] == "engines"]


@pytest.mark.parametrize("module", ENGINES)
def test_engines_import_data_and_engines_alone(module: str) -> None:
    assert set(map(_layer, _ours(module))) <= {"common", "ir", "engines"}


LIGHT = (
    *("engines", "models", "ir", "compiler", "search", "export", "evaluate", "schedules"),
    *("ir.manifest.records", "run.pipeline", "run.triton.service"),
    *("search.cost.cascade", "search.cost.model", "search.cost.select"),
    *("run.__main__", "bench", "build", "inspect", "evaluate.__main__", "__main__"),
    *("search.__main__", "export.__main__", "refit"),
)


@pytest.mark.parametrize("module", LIGHT)
def test_import_is_light(module: str) -> None:
    code = f"import sys, dipgo.{module}; print(*sorted(set(sys.modules) & {set(HEAVY)}))"
    result = _python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


@pytest.mark.parametrize("link", ["export", "engines"])
def test_link_at_the_root_says_what_to_import(link: str) -> None:
    assert (ROOT / link).is_symlink()
    result = _python(f"import {link}")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("ImportError:")
    assert f"import dipgo.{link}" in result.stderr.splitlines()[-1]


def _python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code at the repository's root, which is then first on the path."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
