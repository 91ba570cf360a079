"""Copies a module, and refuses one whose code would go on using the module that was copied.

`copy.deepcopy` copies weights, modules and plain objects, but functions stay as they are: what a
closure, a default or a global variable holds is the original, with the original's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.models.inventory import LIBRARIES

DEPTH = 8
"""Values within each other that are looked into."""


def own_copy(module: nn.Module, where: str, made: Mapping[int, Any] | None = None) -> nn.Module:
    """Returns a deep copy of a module.

    Args:
        module: The module.
        where: What it is, for errors.
        made: Copies that are there already, by the ids of what they are copies of.

    Raises:
        DipgoError: Code in the copy holds modules or weights of the original.
    """
    copied = copy.deepcopy(module, dict(made or {}))
    originals = _parts(module) - _parts(copied)
    for path, part in copied.named_modules():
        for name, value in vars(part).items():
            if _reaches(value, originals, set(), DEPTH):
                raise DipgoError(
                    f"{where}, {path or 'the model'}",
                    found=f"{_name(name, value)}, which holds modules of the loaded pipeline",
                    expected="code that reaches modules through the one that it belongs to: "
                    "a copy is exported, with LoRAs or with weights in float32",
                    remedy="make it a method (types.MethodType), or load the pipeline in float32 "
                    "and fuse its LoRAs before you change it",
                )
    return copied


def _parts(module: nn.Module) -> set[int]:
    """Returns the ids of the modules, parameters and buffers."""
    tensors: Iterable[Tensor] = (*module.parameters(), *module.buffers())
    return {id(part) for part in (*module.modules(), *tensors)}


def _reaches(value: Any, wanted: set[int], seen: set[int], depth: int) -> bool:
    """Returns whether what a value holds is among the objects with these ids."""
    if id(value) in wanted:
        return True
    if id(value) in seen or not depth or isinstance(value, nn.Module | Tensor | type | ModuleType):
        return False
    seen.add(id(value))
    return any(_reaches(member, wanted, seen, depth - 1) for member in _members(value))


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, FunctionType):
        yield from _contents(value)
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        yield from _globals(value)
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    yield from getattr(value, "__dict__", {}).values()


def _contents(function: FunctionType) -> Iterator[Any]:
    """Yields what a function's closure holds; a cell may still be empty."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue


def _globals(function: FunctionType) -> Iterator[Any]:
    """Yields the global variables that a function of the user's reads, such as a notebook's."""
    if function.__globals__.get("__name__", "").partition(".")[0] in LIBRARIES:
        return
    codes = [function.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        names = (name for name in code.co_names if name in function.__globals__)
        yield from (function.__globals__[name] for name in names)


def _name(name: str, value: Any) -> str:
    return f"{name} {getattr(value, '__qualname__', type(value).__qualname__)}"
