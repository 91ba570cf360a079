"""Holds Python values as they were, to see what a call has changed and to put it back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np

from dipgo.models.members import CLASS, DEPTH, Bytes, members_of


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
            members = members_of(value)
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
        now = members_of(self.value) or {}
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
        members = members_of(now) or {}
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
        now = members_of(self.value) or {}
        is_alike = now.keys() == self.members.keys() and all(
            same(held.value, now[key]) for key, held in self.members.items()
        )
        if not is_alike:
            _refill(self.value, {key: held.value for key, held in self.members.items()})


def same(value: Any, now: Any) -> bool:
    """Returns whether `now` is the same object, or an equal number or text of the same type."""
    if now is value:
        return True
    plain = isinstance(now, int | float | str | bytes | Bytes) and type(now) is type(value)
    return plain and bool(now == value)


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
    now = members_of(value) or {}
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
