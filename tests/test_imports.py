"""Imports point down the layers of the design, and running an export needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnxscript")
ONNX = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")

# From the bottom to the top: a module may import from its own layer and from those above it
# in this table. A name stands for dipgo.<name> and all that is in it.
LAYERS = {
    "data": """
        errors hashes json_file prompt_file staging noise patterns recurrence sampler gap_filters
        graph plan plan_check plan_text plan_parser plan_file plan_cost manifest
        manifest_file manifest_plan
        model_repository engine_manifest numpy_types
        subnet subnet_check subnet_file subnet_cut safe_pickle gate_pickle
        """,
    "models": """
        models torch_types costs constants partition precision arithmetic trace tables
        lanes sizes late_start samplers sampler_check scheduler_draws scheduler_names scheduler_run
        """,
    "plans": "unroll granularity passes interpret",
    "search": "search schedules",
    "engines": "engines",
    "export": "export",
    "running": """
        pipeline pipeline_arguments image_input further_inputs drawn_inputs conditioning hub
        video_input timing machine
        """,
    "evaluation": "evaluation",
    "commands": """
        export_facts cli request_arguments build_arguments target_arguments search_arguments
        triton run bench build refit inspect evaluate __main__
        """,
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules.split()}
DEPTH = {layer: depth for depth, layer in enumerate(LAYERS)}

# What a layer, or one module of it, must do without. Imports inside functions count too.
WITHOUT = {
    "data": HEAVY,
    "models": ONNX,
    "unroll": HEAVY,
    "passes": HEAVY,
    "interpret": ONNX,
    "schedules": HEAVY,
    "engines": (*HEAVY, "onnx_ir"),
    "running": HEAVY,
    "commands": HEAVY,
}
EXCEPTIONS = {
    ("safe_pickle", "torch"),  # decodes the tensors in a published pickle
    ("engines.torch.backend", "torch"),  # the target that is PyTorch
    ("engines.torch.executor", "torch"),
    ("export.packages", "diffusers"),  # turns their progress bars off
    ("export.packages", "transformers"),
}


def _modules() -> list[str]:
    """Dotted names below dipgo, without the package itself."""
    paths = sorted((ROOT / "dipgo").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT / "dipgo").with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names if name != "__init__"]


MODULES = _modules()
ENGINES = [name for name in MODULES if name.split(".")[0] == "engines"]


def _imports(module: str) -> Iterator[tuple[str, bool]]:
    """Each name that a module imports, and whether only the type checker sees it."""
    path = ROOT / "dipgo" / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(source.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        for name in _names(node):
            yield name, id(node) in typing_only


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"line {node.lineno}: imports are absolute"
    assert node.module is not None
    if node.module == "dipgo":
        return [f"dipgo.{alias.name}" for alias in node.names]
    return [node.module]


def _key(module: str) -> str:
    """The name that the tables know a module by; `python -m` of a package is a command."""
    first, *rest = module.split(".")
    return "__main__" if rest == ["__main__"] else first


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    assert _key(module) in LAYER_OF, f"give dipgo.{module} a place in LAYERS"
    layer = LAYER_OF[_key(module)]
    for name, typing_only in _imports(module):
        if not name.startswith("dipgo.") or typing_only:
            continue
        imported = _key(name.removeprefix("dipgo."))
        assert imported in LAYER_OF, f"dipgo.{module} imports {name}, which has no place in LAYERS"
        assert DEPTH[LAYER_OF[imported]] <= DEPTH[layer], f"dipgo.{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_layer_does_without(module: str) -> None:
    key = _key(module)
    forbidden = {*WITHOUT.get(LAYER_OF[key], ()), *WITHOUT.get(key, ())}
    found = {name.split(".")[0] for name, typing_only in _imports(module) if not typing_only}
    found -= {package for name, package in EXCEPTIONS if name == module}
    assert not found & forbidden


@pytest.mark.parametrize("module", ENGINES)
def test_engines_import_data_and_engines_alone(module: str) -> None:
    layers = {
        LAYER_OF[_key(name.removeprefix("dipgo."))]
        for name, _ in _imports(module)
        if name.startswith("dipgo.")
    }
    allowed = {"data", "engines"}
    if module.startswith("engines.torch."):  # the target that is PyTorch translates its types
        allowed |= {"models"}
    assert layers <= allowed


LIGHT = (
    *("engines", "manifest", "pipeline", "triton.service"),
    *("search.cascade", "search.cost", "search.select"),
    *("run", "bench", "build", "inspect", "evaluate", "__main__"),
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
