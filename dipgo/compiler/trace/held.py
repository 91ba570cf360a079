"""Holds Python values as they were, to see what a call has changed and to put it back."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
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


class Snapshot:
    """Values as they were; what is reached twice is looked into once."""

    def __init__(self, known: frozenset[int]) -> None:
        """Makes an empty snapshot; objects with the ids `known` are not looked into."""
        self._known = known
        self._held: dict[int, Held] = {}

    def hold(self, value: Any, depth: int = DEPTH) -> Held:
        """Holds a value, with all that can be reached from it and may change."""
        if id(value) in self._held:
            return self._held[id(value)]
        held = self._held[id(value)] = Held(value)
        if id(value) not in self._known and depth:
            members = _members(value)
            if members is not None:
                each = {key: self.hold(member, depth - 1) for key, member in members.items()}
                held.members = each
        return held


@dataclass(slots=True, eq=False)
class Held:
    """A value as it was: if it holds others, with what it held. `members` None: it holds none."""

    value: Any
    members: Mapping[Any, Held] | None = None

    def changes(self) -> Iterator[tuple[Any, ...]]:
        """Yields the paths of what has changed within the value since."""
        yield from self._changes(set())

    def _changes(self, seen: set[int]) -> Iterator[tuple[Any, ...]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        if _advances(self.value):
            yield ()
        if self.members is None:
            return
        now = _members(self.value) or {}
        for key in dict.fromkeys([*self.members, *now]):
            held = self.members.get(key)
            if held is None or key not in now:
                yield (key,)
            elif same(held.value, now[key]):
                for path in held._changes(seen):
                    yield (key, *path)
            elif not held.equals(now[key]):
                yield (key,)

    def equals(self, now: Any, depth: int = DEPTH) -> bool:
        """Returns whether `now` is the same, or a list, tuple or dict of what was held."""
        if not depth or self.members is None or not isinstance(now, dict | list | tuple):
            return same(self.value, now)
        if type(now) is not type(self.value):
            return False
        members = _members(now) or {}
        return members.keys() == self.members.keys() and all(
            held.equals(members[key], depth - 1) for key, held in self.members.items()
        )

    def put_back(self) -> None:
        """Makes the value, and all that it held, what they were."""
        for held in self._all(set()):
            held._put_back_own()

    def _all(self, seen: set[int]) -> Iterator[Held]:
        if id(self) not in seen:
            seen.add(id(self))
            yield self
            for held in (self.members or {}).values():
                yield from held._all(seen)

    def _put_back_own(self) -> None:
        if self.members is None:
            return
        now = _members(self.value) or {}
        is_alike = now.keys() == self.members.keys() and all(
            same(held.value, now[key]) for key, held in self.members.items()
        )
        if not is_alike:
            _refill(self.value, {key: held.value for key, held in self.members.items()})


def same(value: Any, now: Any) -> bool:
    """Returns whether `now` is the same object, or an equal number or text of the same type."""
    if now is value:
        return True
    plain = isinstance(now, int | float | str | bytes | _Bytes) and type(now) is type(value)
    return plain and bool(now == value)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """The numbers of an array, as they were."""

    numbers: bytes


def _members(value: Any) -> dict[Any, Any] | None:
    """Returns what may change in a value by names that stay; None for what is one object."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple | deque):
        return dict(enumerate(value))
    if isinstance(value, set):
        return {member: member for member in value}
    if isinstance(value, np.ndarray):
        return {"numbers": _Bytes(value.tobytes())}
    if isinstance(value, CellType):
        return {"variable": value.cell_contents} if _is_full(value) else {}
    if isinstance(value, partial):
        return {"function": value.func, "arguments": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return {"object": value.__self__, "function": value.__func__}
    if isinstance(value, FunctionType):
        return _reached_from(value) if is_foreign(value.__module__) else None
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


def _advances(value: Any) -> bool:
    """Returns whether a value is an iterator, whose state cannot be seen."""
    return hasattr(type(value), "__next__") and not hasattr(value, "fileno")


def _refill(value: Any, members: dict[Any, Any]) -> None:
    """Puts members into a value in place of those that it has."""
    for types, refill in _REFILLS:
        if isinstance(value, types):
            refill(value, members)
            return


def _refill_list(value: Any, members: dict[Any, Any]) -> None:
    value.clear()
    value.extend(members.values())


def _refill_table(value: Any, members: dict[Any, Any]) -> None:
    value.clear()
    value.update(members)


def _refill_array(value: Any, members: dict[Any, Any]) -> None:
    flat = np.frombuffer(members["numbers"].numbers, value.dtype)
    value[...] = flat.reshape(value.shape)


def _refill_cell(value: Any, members: dict[Any, Any]) -> None:
    if "variable" in members:
        value.cell_contents = members["variable"]


def _refill_function(value: Any, members: dict[str, Any]) -> None:
    for key, member in members.items():
        kind, _, name = key.partition(" ")
        if kind == "global":
            value.__globals__[name] = member
        elif kind == "attribute":
            setattr(value, name, member)


def _refill_object(value: Any, members: dict[str, Any]) -> None:
    now = _members(value) or {}
    for name in now.keys() - members.keys():
        delattr(value, name)
    for name, member in members.items():
        if name != CLASS and (name not in now or not same(member, now[name])):
            setattr(value, name, member)


_REFILLS: tuple[tuple[Any, Callable[[Any, dict[Any, Any]], None]], ...] = (
    (dict, _refill_table),
    ((list, deque), _refill_list),
    (set, _refill_table),
    (np.ndarray, _refill_array),
    (CellType, _refill_cell),
    (FunctionType, _refill_function),
    ((tuple, partial, MethodType), lambda value, members: None),
    (object, _refill_object),
)
