"""All that our source uses of NVIDIA's libraries is in the real ones, and nothing that left them.

Neither a GPU nor a driver is needed to ask the modules what they have.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipgo
from tests.support.nvidia_stand_in import driver as stand_in_driver
from tests.support.nvidia_stand_in import tensorrt as stand_in_tensorrt

SOURCE = Path(dipgo.__file__).parent
CUDA = SOURCE / "engines" / "tensorrt" / "cuda.py"
TENSORRT = sorted((SOURCE / "engines" / "tensorrt").glob("*.py"))
CLASSES = {
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "_runtime": "Runtime",
    "runtime": "Runtime",
    "config": "IBuilderConfig",
    "runtime_config": "IRuntimeConfig",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "refitter": "Refitter",
    "parser": "OnnxParserRefitter",
    "serialization_config": "ISerializationConfig",
}
"""What the executor, the builder and the refitter call their objects."""
STAND_INS = (
    "Runtime",
    "ICudaEngine",
    "IExecutionContext",
    "Refitter",
    "OnnxParserRefitter",
    "ISerializationConfig",
)
MODULES = {"library", "trt", "tensorrt_rtx"}
OURS = {"executor.py", "build_engine.py", "refit_engine.py", "gpu.py"}
"""The files that call the library's API; in others an `engine` is a path."""

# What TensorRT 11 no longer has, or Polygraphy takes for TensorRT 10 alone.
REMOVED = (
    r"\bBuilderFlag\.(FP16|BF16|INT8|FP8)\b",
    r"\bEXPLICIT_BATCH\b",
    r"\.(set_output_type|reset_precision|set_precision)\b",
    r"\b(IInt8\w*|\w*Calibrator)\b",
    r"\bcreate_execution_context_without_device_memory\b",
    r"\bdevice_memory_size\b(?!_)",
    r"\bget_device_memory_size_for_profile\b(?!_)",
    r"\b(weight_streaming_budget)\b(?!_)",
    r"\b(execute_async_v2|num_bindings|get_binding_\w+|max_batch_size|build_engine\()",
)
REMOVED_ARGUMENTS = {"fp16", "bf16", "int8", "fp8", "calibrator", "precision_constraints"}


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text())


def _driver_calls() -> Iterator[tuple[str, int | None]]:
    """Functions of the driver with how many arguments they get; None where the source is open."""
    for node in ast.walk(_tree(CUDA)):
        if not isinstance(node, ast.Call):
            continue
        given, name = list(node.args), None
        if isinstance(node.func, ast.Attribute) and node.func.attr.startswith("cu"):
            name = node.func.attr
        elif given and isinstance(given[0], ast.Constant) and str(given[0].value)[:2] == "cu":
            name = str(given.pop(0).value)
        if name and re.match(r"cu[A-Z]", name):
            yield name, None if any(isinstance(x, ast.Starred) for x in given) else len(given)


def _driver_members() -> Iterator[str]:
    for node in ast.walk(_tree(CUDA)):
        if isinstance(node, ast.Attribute) and re.match(r"(CU|CUDA)_", node.attr):
            yield node.attr


def _enum_names() -> set[str]:
    attributes = (n for n in ast.walk(_tree(CUDA)) if isinstance(n, ast.Attribute))
    return {node.attr for node in attributes if re.match(r"CU[a-z]", node.attr)}


def _arity(function: Any) -> int:
    """The real functions tell their arguments in the first line of their docstring alone."""
    (inside,) = re.fullmatch(r"\w+\((.*)\)", function.__doc__.splitlines()[0]).groups()  # type: ignore[union-attr]
    return len(inside.split(",")) if inside else 0


@pytest.fixture(scope="module")
def real_driver() -> Any:
    return importlib.import_module("cuda.bindings.driver")


@pytest.fixture(scope="module")
def real_tensorrt() -> Any:
    return importlib.import_module("tensorrt_rtx")


def test_the_drivers_functions(real_driver: Any) -> None:
    calls = set(_driver_calls())
    assert len(calls) > 20, "the walk over the source finds too little"
    for name, count in calls:
        assert count in (None, _arity(getattr(real_driver, name))), name


def test_the_drivers_enumerations(real_driver: Any) -> None:
    enums, members = _enum_names(), set(_driver_members())
    assert enums
    assert members
    known = {member for name in enums for member in getattr(real_driver, name).__members__}
    assert members <= known


def test_the_stand_in_driver_is_like_the_real_one(real_driver: Any) -> None:
    for name, value in vars(stand_in_driver).items():
        if re.match(r"cu[A-Z]", name):
            found = len(inspect.signature(value).parameters)
            assert found == _arity(getattr(real_driver, name)), name
        elif re.match(r"CU[a-z]", name):
            real = getattr(real_driver, name)
            assert {one.name: int(one) for one in value}.items() <= {
                one.name: int(one) for one in real
            }.items()


def _library_uses() -> Iterator[tuple[str, ...]]:
    """Paths of attributes below the module: ("Logger", "ERROR"), ("IExecutionContext", "…")."""
    for path in TENSORRT:
        if path.name not in OURS:
            continue
        for node in ast.walk(_tree(path)):
            names = _dotted(node)
            if names and names[0] in MODULES:
                yield names[1:]
            for receiver, attribute in itertools.pairwise(names):
                if receiver in CLASSES and not attribute.startswith("__"):
                    yield CLASSES[receiver], attribute


def _dotted(node: ast.AST) -> tuple[str, ...]:
    """("library", "Logger", "ERROR") for `library.Logger.ERROR`; nothing for what is no name."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*_dotted(node.value), node.attr)
    return ()


def test_the_librarys_names(real_tensorrt: Any) -> None:
    uses = {use for use in _library_uses() if use}
    assert len(uses) > 10, "the walk over the source finds too little"
    for use in uses:
        _follow(real_tensorrt, use)


def test_the_stand_in_library_has_the_names_that_the_executor_uses(real_tensorrt: Any) -> None:
    """And every public name of the stand-in's classes that is a method is one of the real."""
    for name in STAND_INS:
        for attribute, value in vars(getattr(stand_in_tensorrt, name)).items():
            if not attribute.startswith("_"):
                real = getattr(getattr(real_tensorrt, name), attribute)
                _check_signature(value, real)


def _check_signature(stand_in: Any, real: Any) -> None:
    """Some overload of the real method has the stand-in's argument names."""
    if isinstance(stand_in, property):
        assert isinstance(real, property)
        return
    forms = re.findall(rf"{stand_in.__name__}\(self[^,)]*(.*?)\) ->", real.__doc__)
    found = list(inspect.signature(stand_in).parameters)[1:]
    assert found in [re.findall(r"(\w+): (?!\d)", form) for form in forms], stand_in.__qualname__


def _follow(module: Any, path: tuple[str, ...]) -> None:
    found = module
    for name in path:
        assert hasattr(found, name), ".".join(path)
        found = getattr(found, name)


def test_polygraphys_names() -> None:
    """Every name that the builder imports of it."""
    pytest.importorskip("polygraphy")
    found = 0
    for path in TENSORRT:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("polygraphy"):
                names = [alias.name for alias in node.names]
                text = Path(importlib.import_module("polygraphy").__file__ or "").parent
                folder = text.joinpath(*str(node.module).split(".")[1:])
                files = [folder.with_suffix(".py"), *folder.glob("*.py")]
                source = "".join(file.read_text() for file in files if file.is_file())
                for name in names:
                    assert re.search(rf"\b{name}\b", source), f"{node.module}.{name}"
                    found += 1
    assert found > 5


@pytest.mark.parametrize("pattern", REMOVED)
def test_no_name_that_tensorrt_11_removed(pattern: str) -> None:
    for path in [*TENSORRT, CUDA, *SOURCE.glob("engines/*.py")]:
        found = re.search(pattern, _without_strings(path))
        assert not found, f"{path.name}: {found and found.group()}"


def _without_strings(path: Path) -> str:
    """The code alone: docstrings and comments may tell of what is gone."""
    return ast.unparse(_Strip().visit(_tree(path)))


class _Strip(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        constant = isinstance(node.value, ast.Constant)
        return ast.Pass() if constant else self.generic_visit(node)


def test_no_precision_is_asked_of_the_builder() -> None:
    """It is in the graph; layers have none, and Polygraphy's arguments are of flags that left."""
    for path in TENSORRT:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.keyword):
                assert node.arg not in REMOVED_ARGUMENTS, path.name
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    assert not (isinstance(target, ast.Attribute) and target.attr == "precision")


def test_the_removed_names_would_be_found() -> None:
    """The patterns against what they are to find."""
    for line in ("config.set_flag(trt.BuilderFlag.FP16)", "engine.device_memory_size"):
        assert any(re.search(pattern, line) for pattern in REMOVED)
    assert not any(re.search(pattern, "engine.device_memory_size_v2") for pattern in REMOVED)
