"""Makes commands' options from dataclasses: a field holds its help, its bounds and its default."""

from __future__ import annotations

import math
import operator
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, field, fields, replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dipgo.common.cli import Parser
from dipgo.common.errors import DipgoError, setting

Settings = TypeVar("Settings")

WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "text",
    NoneType: "None",
}
"""The words by which an error names the values of a type."""

WORD = 64
"""Bits of the numbers that tensors hold."""
BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "least": (operator.ge, "of at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "of at most"),
    "below": (operator.lt, "below"),
}
"""What a field's metadata may say of a number: how it is compared, and the words."""

ARGPARSE = ("metavar", "nargs", "action", "type", "choices")
"""The keys of a field's metadata that are passed to argparse."""


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
            `dataclasses.field`.
    """
    kw_only = more.pop("kw_only", MISSING)
    return field(default=default, kw_only=kw_only, metadata={"help": help, "group": group, **more})


def add_options(
    parser: Parser,
    settings: type,
    *,
    only: Collection[str] = (),
    described: type | None = None,
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Adds an option for every field of `settings` that has a help text.

    An option that is left out is None in the namespace, so that the dataclass's default applies.

    Args:
        parser: The command's parser.
        settings: A dataclass.
        only: Names of fields; empty for all.
        described: Settings whose fields describe the fields of the same name in `settings` that
            have no description.
        defaults: The defaults that the help shows in place of the dataclass's, by field.
    """
    hints = get_type_hints(settings)
    for setting_field in fields(settings):
        about, name = _about(setting_field, described), setting_field.name
        if "help" in about and (not only or name in only):
            default = (defaults or {}).get(name, setting_field.default)
            _add(parser, name, hints[name], default, about)


def read_settings(
    options: Namespace, settings: type[Settings], base: Settings | None = None, **more: Any
) -> Settings:
    """Returns the settings of a command line, on top of `base` or the defaults.

    Args:
        options: The parsed options.
        settings: A dataclass.
        base: The settings to change; the dataclass's defaults if None.
        more: Values of fields that have no option.

    Raises:
        DipgoError: A value is wrong.
    """
    values = {item.name: getattr(options, item.name, None) for item in fields(settings)}  # type: ignore[arg-type]
    changes = {name: value for name, value in values.items() if value is not None} | more
    return settings(**changes) if base is None else replace(base, **changes)  # type: ignore[type-var]


def check_settings(settings: Any, described: type | None = None) -> None:
    """Checks the types and bounds of all fields; lists become tuples first.

    Args:
        settings: An instance of a dataclass.
        described: Settings whose fields describe the fields of the same name, as for
            `add_options`.

    Raises:
        DipgoError: A value has another type or is out of bounds; the error names the field.
    """
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        value, hint, about = getattr(settings, item.name), hints[item.name], _about(item, described)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(settings, item.name, value)
        if not _fits(value, hint):
            raise wrong(item.name, value, _words(hint))
        choices = about.get("choices")
        if choices and value not in choices:
            raise wrong(item.name, value, f"one of {', '.join(choices)}")
        if isinstance(value, Real):
            _check_bounds(item.name, value, about)


def wrong(name: str, value: object, expected: str, remedy: str = "correct it") -> DipgoError:
    """Returns the error for a field that holds a wrong value."""
    if isinstance(value, int) and value.bit_length() > WORD:  # Python prints no long ones
        text = f"a number of {value.bit_length()} bits"
    else:
        text = f"{value}" or "''"
    return DipgoError(setting(name), found=text, expected=expected, remedy=remedy)


def _about(item: Field[Any], described: type | None) -> Mapping[str, Any]:
    """Returns the metadata of a field, or of the field of its name in `described`."""
    if item.metadata or described is None:
        return item.metadata
    return next((same.metadata for same in fields(described) if same.name == item.name), {})


def _add(parser: Parser, name: str, hint: Any, default: object, about: Mapping[str, Any]) -> None:
    add = parser.group(about["group"]).add_argument
    flag = about.get("flag", f"--{name.replace('_', '-')}")
    text = _help(about["help"], default)
    hint = _without_none(hint)
    if hint is bool and "flag" in about:
        add(flag, dest=name, action="store_const", const=not _is_on(default), help=text)
    elif hint is bool:
        add(flag, dest=name, action="store_true", default=None, help=text)
        add(f"--no-{flag[2:]}", dest=name, action="store_false", default=None)
    else:
        keywords = {key: about[key] for key in ARGPARSE if key in about}
        required = default is MISSING
        add(flag, dest=name, help=text, required=required, **{**_typed(hint), **keywords})


def _help(words: str | Callable[[], str], default: object) -> str:
    text = words if isinstance(words, str) else words()
    complete = default is None or default is MISSING or default == () or text.endswith(")")
    return (text if complete else f"{text} ({default})").replace("%", "%%")


def _is_on(default: object) -> bool:
    """Returns whether a switch is on; None, which lets the model decide, can only be turned off."""
    return default is not False


def _typed(hint: Any) -> dict[str, Any]:
    """Returns argparse's keywords for a type: choices for Literal, type and metavar for numbers."""
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    letters = {int: "N", float: "X"}
    return {"type": hint, "metavar": letters[hint]} if hint in letters else {}


def _without_none(hint: Any) -> Any:
    """Returns `int` for `int | None`, and other hints as they are."""
    rest = [member for member in get_args(hint) if member is not NoneType]
    return rest[0] if get_origin(hint) in (Union, UnionType) and len(rest) == 1 else hint


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in arguments)
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
    return isinstance(value, hint) if isinstance(hint, type) else callable(value)


def _items_fit(items: tuple[object, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_fits(item, hints[0]) for item in items)
    return len(items) == len(hints) and all(map(_fits, items, hints))


def _words(hint: Any) -> str:
    """Returns the values that fit a type, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return f"a tuple, each {_words(arguments[0])}"
    return WORDS.get(hint) or (f"a {hint.__name__}" if isinstance(hint, type) else "a function")


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
