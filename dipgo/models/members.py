"""Looks into Python values: what a function, an object or a table holds, and whose code it is."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

DEPTH = 8
"""Values within each other that are looked into."""

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "dipgo", "numpy")
"""Packages whose functions and objects are taken for stateless; modules are not objects here."""

CLASS = "its class"

WITH_STATE = ("types", "queue", "collections")
"""Modules of Python whose objects keep state in attributes."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """The numbers of an array, as they were."""

    numbers: bytes


def members_of(value: Any) -> dict[Any, Any] | None:
    """Returns what may change in a value by names that stay; None for what is one object."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple | deque):
        return dict(enumerate(value))
    if isinstance(value, set):
        return {member: member for member in value}
    if isinstance(value, np.ndarray):
        return {"numbers": Bytes(value.tobytes())}
    if isinstance(value, CellType):
        return {"variable": value.cell_contents} if _is_full(value) else {}
    if isinstance(value, partial):
        return {"function": value.func, "arguments": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return {"object": value.__self__, "function": value.__func__}
    if isinstance(value, FunctionType):
        return _reached_from(value) if is_foreign(_home(value)) else None
    if isinstance(value, nn.Module):
        return dict(value.__dict__)
    if isinstance(value, torch.Tensor | ModuleType) or not _may_keep(value):
        return None
    if isinstance(value, type):
        return {name: member for name, member in vars(value).items() if not name.startswith("__")}
    return {**_slots(value), **getattr(value, "__dict__", {}), CLASS: type(value)}


def is_foreign(module: str | None) -> bool:
    """Returns whether code of a module is no library's, and may keep state."""
    package = (module or "").partition(".")[0]
    if package == "__main__":
        return True
    return package in WITH_STATE or (
        package not in LIBRARIES and package not in sys.stdlib_module_names
    )


def _home(function: FunctionType) -> str | None:
    """Returns the module that a function is written in; `functools.wraps` names another's."""
    return function.__globals__.get("__name__")


def _may_keep(value: Any) -> bool:
    cls = value if isinstance(value, type) else type(value)
    return is_foreign(cls.__module__)


def _slots(value: Any) -> dict[str, Any]:
    names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _reached_from(function: FunctionType) -> dict[str, Any]:
    """Returns a function's closure, defaults, attributes, and the globals that it names."""
    reached: dict[str, Any] = {
        f"variable {name}": cell
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        )
    }
    reached |= {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    reached |= {f"attribute {name}": value for name, value in function.__dict__.items()}
    names = _names(function.__code__)
    return reached | {
        f"global {name}": function.__globals__[name]
        for name in sorted(names)
        if name in function.__globals__
    }


def _names(code: Any) -> set[str]:
    """Returns the names in a function's code and in the functions within it."""
    inner = (constant for constant in code.co_consts if inspect.iscode(constant))
    return set(code.co_names).union(*map(_names, inner))


def _is_full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None or True
    except ValueError:
        return False
