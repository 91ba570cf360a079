"""Reads what a program gives as a SubNet's parts: numbers, names and tables of any type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import fields
from functools import cache
from itertools import islice
from typing import Any, get_type_hints

from numpy.typing import NDArray

from dipgo.common.arguments import check_argument
from dipgo.common.errors import DipgoError, wrong_type
from dipgo.common.given_numbers import array_of
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.gap_rule import GapRule

MOST_ITEMS = 1_000_000
"""Of a list that a program gives: a generator may have no end."""

UNORDERED = (str, bytes, Mapping, Set)
"""Types that can be iterated over, and are no lists."""


def numbers_of(name: str, values: Any) -> tuple[float, ...]:
    """Returns a list of numbers, or an array or a tensor, as floats.

    Raises:
        DipgoError: It is something else.
    """
    items = _items(name, values, "a list of numbers")
    try:
        if not any(isinstance(item, UNORDERED) for item in items):
            return tuple(map(float, items))
    except (TypeError, ValueError, OverflowError):
        pass
    raise wrong_type(name, values, "a list of numbers")


def names_of(name: str, values: Any) -> tuple[str, ...]:
    """Returns a list of names.

    Raises:
        DipgoError: It is something else.
    """
    items = _items(name, values, "a list of names")
    for item in items:
        if not isinstance(item, str):
            raise wrong_type(name, item, "a list of names, which are text")
    return items


def table_of(name: str, values: Any) -> NDArray[Any]:
    """Returns a table of numbers as an array.

    Raises:
        DipgoError: It is something else, or has rows of unequal lengths.
    """
    table = None if isinstance(values, UNORDERED) else array_of(values)
    if table is None:
        raise wrong_type(name, values, "a table of numbers, with a row a step")
    return table


def rows_of(name: str, rows: Any) -> tuple[tuple[float, ...], ...]:
    """Returns rows of numbers, of any lengths.

    Raises:
        DipgoError: It is something else.
    """
    items = _items(name, rows, "a list of rows of numbers")
    return tuple(numbers_of(f"{name}, row {index}", row) for index, row in enumerate(items))


def _items(name: str, values: Any, expected: str) -> tuple[Any, ...]:
    if isinstance(values, UNORDERED) or not isinstance(values, Iterable):
        raise wrong_type(name, values, expected)
    try:
        items = tuple(islice(values, MOST_ITEMS + 1))
    except TypeError:  # an array without axes
        raise wrong_type(name, values, expected) from None
    if len(items) > MOST_ITEMS:
        raise DipgoError(
            name,
            found=f"more than {MOST_ITEMS:,} items",
            expected=expected,
            remedy="give one item a row or block",
        )
    return items


def _records_of(kind: type) -> Callable[[str, Any], tuple[Any, ...]]:
    def read(name: str, values: Any) -> tuple[Any, ...]:
        records = _items(name, values, f"a list, each a {kind.__name__}")
        for record in records:
            if not isinstance(record, kind):
                raise wrong_type(name, record, f"a list, each a {kind.__name__}")
        return records

    return read


READ: dict[str, Callable[[str, Any], Any]] = {
    "timesteps": numbers_of,
    "blocks": names_of,
    "gates": table_of,
    "backup": names_of,
    "scores": table_of,
    "reuse": rows_of,
    "reuse_unconditional": rows_of,
    "reuse_filters": _records_of(GapFilters),
    "more_gaps": _records_of(GapRule),
}
"""How each field of a SubNet is read that may be given in several forms."""

MAY_BE_NONE = ("scores", "reuse", "reuse_unconditional", "reuse_filters")


def read_parts(subnet: Any) -> Iterator[tuple[str, Any]]:
    """Yields each field that a SubNet was given, by name, in the form that it keeps.

    Raises:
        DipgoError: One is of a wrong type.
    """
    cls: Any = type(subnet)
    for name, hint in _hints(cls).items():
        value = check_argument(name, getattr(subnet, name), hint)
        is_read = name in READ and not (value is None and name in MAY_BE_NONE)
        yield name, READ[name](name, value) if is_read else value


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {item.name: hints[item.name] for item in fields(cls) if item.init}
