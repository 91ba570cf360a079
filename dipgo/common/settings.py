"""Declares settings as dataclasses whose fields hold their help and bounds, and checks them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from dipgo.common.errors import WORD, DipgoError, close_to, wrong, wrong_type

WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "text",
    Path: "a path",
    NoneType: "None",
    Callable: "a function",
    Mapping: "a mapping of names, such as a dict",
}
"""The words by which an error names the values of a type."""

BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "least": (operator.ge, "of at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "of at most"),
    "below": (operator.lt, "below"),
}
"""What a field's metadata may say of a number: how it is compared, and the words."""


def option(
    default: Any = MISSING, *, help: str | Callable[[], str], group: str, **more: Any
) -> Any:
    """Returns a field of settings that is an option of commands too.

    Args:
        default: The default; an option that has none is required.
        help: A few words. The default is shown after them, unless they end with brackets. A
            function, if they name the rows of a table to which others may add.
        group: The heading in a command's help.
        more: `flag`, if the option's name is not the field's; `metavar`, `nargs`, `action`,
            `type` and `choices` as argparse takes them; bounds of a number, as in BOUNDS, with
            `expected` and `remedy` for an error in other words; `kw_only` as for
            `dataclasses.field`; `needs`, if the option has no effect unless other settings have
            these values, by name: True and False stand for all that count as such, a tuple for any
            of its values.
    """
    kw_only = more.pop("kw_only", MISSING)
    return field(default=default, kw_only=kw_only, metadata={"help": help, "group": group, **more})


def check_settings(settings: Any, described: type | None = None) -> None:
    """Checks the types and bounds of all fields; lists become tuples, numpy's numbers Python's.

    Args:
        settings: An instance of a dataclass.
        described: Settings whose fields describe the fields of the same name, as for
            `add_options`.

    Raises:
        DipgoError: A value has another type or is out of bounds; the error names the field.
    """
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        value, hint, about = (
            getattr(settings, item.name),
            hints[item.name],
            about_field(item, described),
        )
        if value is not plain(value):
            value = plain(value)
            object.__setattr__(settings, item.name, value)
        if not fits(value, hint):
            raise _misfit(item.name, value, hint, about.get("expected") or words_for(hint))
        choices = about.get("choices")
        if choices and value not in choices:
            expected = f"one of {', '.join(choices)}"
            raise wrong(item.name, value, expected, close_to(value, choices))
        if isinstance(value, Real):
            _check_bounds(item.name, value, about)


def about_field(item: Field[Any], described: type | None) -> Mapping[str, Any]:
    """Returns the metadata of a field, or of the field of its name in `described`."""
    if item.metadata or described is None:
        return item.metadata
    return next((same.metadata for same in fields(described) if same.name == item.name), {})


def unmet_need(settings: Any, name: str) -> tuple[str, Any] | None:
    """Returns the setting, with its value, for which a field has no effect; None if it has one."""
    (item,) = (field for field in fields(settings) if field.name == name)
    for other, wanted in item.metadata.get("needs", {}).items():
        value = getattr(settings, other)
        present = bool(value) if isinstance(wanted, bool) else value
        if present not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            return other, value
    return None


def _misfit(name: str, value: object, hint: Any, expected: str) -> DipgoError:
    """Returns the error for a value of a wrong type, or for a word that is none of a Literal's."""
    if not isinstance(value, str) or not _takes_text(hint):
        return wrong_type(name, value, expected)
    choices = [word for member in members_of(hint) for word in get_args(member)]
    return wrong(name, value, expected, close_to(value, choices))


def members_of(hint: Any) -> tuple[Any, ...]:
    """Returns the types of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def fits(value: object, hint: Any) -> bool:
    """Returns whether a value is of a type: numbers of numpy are numbers, True is none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(value, arguments)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is int:
        return isinstance(value, Integral)
    if hint is float:
        return isinstance(value, Real)
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    return isinstance(value, origin or hint)


def plain(value: Any) -> Any:
    """Returns a list as a tuple, a number of numpy as Python's, and all else as it is."""
    if isinstance(value, list | tuple):
        items = tuple(map(plain, value))
        unchanged = isinstance(value, tuple) and all(map(operator.is_, items, value))
        return value if unchanged else items
    return value.item() if isinstance(value, np.number | np.bool_) else value


def _takes_text(hint: Any) -> bool:
    """Returns whether some text fits a type, or its members."""
    return hint is str or get_origin(hint) is Literal or any(map(_takes_text, get_args(hint)))


def _items_fit(items: tuple[object, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(fits(item, hints[0]) for item in items)
    return len(items) == len(hints) and all(map(fits, items, hints))


def words_for(hint: Any) -> str:
    """Returns the values that fit a type, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(words_for, arguments))
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return f"a tuple, each {words_for(arguments[0])}"
    return WORDS.get(origin or hint) or f"a {hint.__name__}"


def _check_bounds(name: str, value: Real, about: Mapping[str, Any]) -> None:
    """Also refuses NaN, of which no comparison holds, infinities, and what no tensor holds."""
    if isinstance(value, Integral) and int(value).bit_length() >= WORD:
        raise wrong(name, value, f"a number of less than {WORD} bits")
    for bound, (holds, words) in BOUNDS.items():
        if bound in about and not holds(value, about[bound]):
            expected = about.get("expected", f"a number {words} {about[bound]}")
            raise wrong(name, f"{value}", expected, about.get("remedy", "correct it"))
    if not math.isfinite(value):
        raise wrong(name, f"{value}", "a finite number")
