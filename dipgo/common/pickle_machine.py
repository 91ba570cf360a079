"""Runs the opcodes of pickles of plain data, within bounds.

Python's own unpickler allocates what a pickle asks for: nine bytes may ask for gigabytes. It also
builds objects that hold one list many times over, of which whoever walks through them sees no end.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

MOST_OPCODES = 500_000

MOST_VALUES = 1 << 23
"""Values in an object, each counted as often as it is met on a walk through the object."""

MOST_DEPTH = 50

MOST_BITS = 128
"""The size of an integer; torch begins its files with one of 77 bits."""

SCALARS = (str, bytes, int, float, type(None))

_MARK = object()


class Machine:
    """Builds the object in a pickle of dicts, lists, tuples, texts and numbers.

    Args:
        file: The pickle; what follows it in the file is not read.
        find_global: Returns what stands for a global of a module, or raises.
        load_persistent: Returns the object of an id outside the pickle, or raises.

    What they lead to may have an attribute `size`, the number of its values, and a method
    `set_state`, which BUILD calls.
    """

    def __init__(
        self,
        file: BytesIO,
        find_global: Callable[[str, str], Any],
        load_persistent: Callable[[Any], Any],
    ) -> None:
        self._file, self._find, self._persistent = file, find_global, load_persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._alive: list[Any] = []  # so that no two objects have one id
        self._held = 0
        self._counts: dict[int, int] = {}
        self._depths: dict[int, int] = {}
        self._globals: set[int] = set()
        self._within: set[int] = set()
        """Objects that are in others, which no longer change."""

    def load(self) -> Any:
        """Returns the object.

        Raises:
            Exception: The pickle is damaged, or asks for more than there may be; of what class
                depends on where that is met.
        """
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self._file)):
            if number > MOST_OPCODES:
                raise ValueError(f"more than {MOST_OPCODES:,} opcodes")
            if opcode.name in _ARGUMENTS:
                self._push_argument(argument)
            else:
                _STEPS[opcode.name](self, argument)
        (result,) = self._stack
        return result

    def _push_argument(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise ValueError(f"an integer of {value.bit_length():,} bits")
        self._stack.append(bytes(value) if isinstance(value, bytearray) else value)

    def _push(self, value: Any, children: Sequence[Any] = ()) -> None:
        """Pushes an object, of which `children` are part."""
        if not isinstance(value, SCALARS):
            self._alive.append(value)
            self._counts[id(value)] = 1
            self._hold(value)
            self._count(value, children)
        self._stack.append(value)

    def _hold(self, value: Any) -> None:
        """Counts what all objects hold of their own, whether they end up in the result or not."""
        self._held += getattr(value, "size", 1)
        if self._held > 2 * MOST_VALUES:
            raise ValueError(f"objects of more than {2 * MOST_VALUES:,} values")

    def _count(self, target: Any, children: Sequence[Any]) -> None:
        """Counts an object's own values, if it has any, and those of new parts of it."""
        parts = [child for child in children if not isinstance(child, SCALARS)]
        self._within.update(map(id, parts))
        if id(target) in self._within:
            raise ValueError("an object that changes after it was put into another")
        own = max(self._counts[id(target)], getattr(target, "size", 1))
        depth = max((self._depths[id(part)] for part in parts), default=0) + 1
        self._depths[id(target)] = max(self._depths.get(id(target), 1), depth)
        if self._depths[id(target)] > MOST_DEPTH:
            raise ValueError(f"objects in one another, more than {MOST_DEPTH} deep")
        count = own + len(children) - len(parts) + sum(self._counts[id(part)] for part in parts)
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        self._counts[id(target)] = count

    def _take(self, count: int) -> list[Any]:
        """Takes values off the stack."""
        items = self._stack[max(0, len(self._stack) - count) :]
        if len(items) < count or any(item is _MARK for item in items):
            raise ValueError("too few values on the stack")
        del self._stack[len(self._stack) - count :]
        return items

    def _take_to_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _top(self) -> Any:
        (value,) = self._take(1)
        self._stack.append(value)
        return value

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise ValueError(f"values for a {type(target).__name__}")
        self._count(target, items)
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict):
            raise ValueError(f"keys for a {type(target).__name__}")
        for key in items[::2]:
            parts = key if type(key) is tuple else (key,)
            if not all(isinstance(part, SCALARS) for part in parts):
                raise ValueError("a key that is no text, number or tuple of these")
        self._count(target, items)
        target.update(zip(items[::2], items[1::2], strict=True))

    def _make_dict(self, items: list[Any]) -> None:
        self._push({})
        self._set_items(items)

    def _remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._top()

    def _push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global that is named by no text")
        value = self._find(module, name)
        self._push(value)
        self._globals.add(id(value))

    def _call(self) -> None:
        function, arguments = self._take(2)
        if id(function) not in self._globals or type(arguments) is not tuple:
            raise ValueError("a call of what is no global")
        self._push(function(*arguments))

    def _build(self) -> None:
        (state,) = self._take(1)
        target = self._top()
        target.set_state(state)
        self._hold(target)
        self._count(target, ())


Step = Callable[[Machine, Any], object]

_ARGUMENTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
"""Opcodes that push their argument."""


def _tuple_of(count: int) -> Step:
    def step(machine: Machine, _: Any) -> None:
        items = machine._take(count)
        machine._push(tuple(items), items)

    return step


def _tuple(machine: Machine, _: Any) -> None:
    items = machine._take_to_mark()
    machine._push(tuple(items), items)


def _list(machine: Machine, _: Any) -> None:
    items = machine._take_to_mark()
    machine._push(items, items)


def _get(machine: Machine, index: Any) -> None:
    machine._stack.append(machine._memo[index])


_STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    "NONE": lambda machine, _: machine._stack.append(None),
    "NEWTRUE": lambda machine, _: machine._stack.append(True),
    "NEWFALSE": lambda machine, _: machine._stack.append(False),
    "MARK": lambda machine, _: machine._stack.append(_MARK),
    "POP": lambda machine, _: machine._stack.pop(),
    "POP_MARK": lambda machine, _: machine._take_to_mark(),
    "DUP": lambda machine, _: machine._stack.append(machine._top()),
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE": _tuple,
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "LIST": _list,
    "APPEND": lambda machine, _: machine._append(machine._take(1)),
    "APPENDS": lambda machine, _: machine._append(machine._take_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "DICT": lambda machine, _: machine._make_dict(machine._take_to_mark()),
    "SETITEM": lambda machine, _: machine._set_items(machine._take(2)),
    "SETITEMS": lambda machine, _: machine._set_items(machine._take_to_mark()),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
        lambda machine, index: machine._remember(index),
    ),
    "GLOBAL": lambda machine, names: machine._push_global(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine._push_global(*machine._take(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine._call()),
    "BUILD": lambda machine, _: machine._build(),
    "BINPERSID": lambda machine, _: machine._push(machine._persistent(*machine._take(1))),
}
"""Opcodes of plain data; a pickle with another one is refused."""
