"""Options of commands, read off dataclasses: a field has its help and bounds beside its default."""

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
"""What a field of a type must hold, as an error says it."""

BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "least": (operator.ge, "of at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "of at most"),
    "below": (operator.lt, "below"),
}
"""What a field's metadata may say of a number: how it is compared, and the words."""

ARGPARSE = ("metavar", "nargs", "action", "type", "choices")
"""What of a field's metadata is argparse's."""


def option(default: Any = MISSING, *, help: str, group: str, **more: Any) -> Any:
    """Returns a field of settings that is an option of commands too.

    Args:
        default: without one the option is required.
        help: a few words. The default is shown after them, unless they end with brackets.
        group: the heading in a command's help.
        more: `flag` where the option is not called as the field; `metavar`, `nargs`, `action`,
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

    An option that is left out is None in the namespace: the default is the dataclass's own.

    Args:
        parser: of the command.
        settings: a dataclass.
        only: names of fields; empty for all.
        described: settings whose fields say what those of the same name here leave unsaid.
        defaults: for fields that the command gives another default than the dataclass.
    """
    hints = get_type_hints(settings)
    for one in fields(settings):
        about = _about(one, described)
        if "help" in about and (not only or one.name in only):
            default = (defaults or {}).get(one.name, one.default)
            _add(parser, one.name, hints[one.name], default, about)


def read_settings(
    options: Namespace, settings: type[Settings], base: Settings | None = None, **more: Any
) -> Settings:
    """Returns the settings that the options give, over `base` or the defaults. Raises DipgoError.

    `more` are further fields, for which there is no option.
    """
    values = {one.name: getattr(options, one.name, None) for one in fields(settings)}  # type: ignore[arg-type]
    given = {name: value for name, value in values.items() if value is not None} | more
    return settings(**given) if base is None else replace(base, **given)  # type: ignore[type-var]


def check_settings(settings: Any, described: type | None = None) -> None:
    """Raises DipgoError, naming the field, for a value of another type or beyond its bounds.

    Lists become tuples first. `described` is as for `add_options`.
    """
    hints = get_type_hints(type(settings))
    for one in fields(settings):
        value, hint, about = getattr(settings, one.name), hints[one.name], _about(one, described)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(settings, one.name, value)
        if not _fits(value, hint):
            raise wrong(one.name, value, _words(hint))
        choices = about.get("choices")
        if choices and value not in choices:
            raise wrong(one.name, value, f"one of {', '.join(choices)}")
        if isinstance(value, Real):
            _check_bounds(one.name, value, about)


def wrong(name: str, value: object, expected: str, remedy: str = "correct it") -> DipgoError:
    """Returns the error for a field that holds a wrong value."""
    return DipgoError(setting(name), found=f"{value}" or "''", expected=expected, remedy=remedy)


def _about(one: Field[Any], described: type | None) -> Mapping[str, Any]:
    if one.metadata or described is None:
        return one.metadata
    return next((same.metadata for same in fields(described) if same.name == one.name), {})


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
        given = {key: about[key] for key in ARGPARSE if key in about}
        required = default is MISSING
        add(flag, dest=name, help=text, required=required, **{**_typed(hint), **given})


def _help(text: str, default: object) -> str:
    said = default is None or default is MISSING or default == () or text.endswith(")")
    return (text if said else f"{text} ({default})").replace("%", "%%")


def _is_on(default: object) -> bool:
    """Whether a switch stands at on; None, which lets the model decide, can be turned off alone."""
    return default is not False


def _typed(hint: Any) -> dict[str, Any]:
    """What argparse is told of a type: Literal has choices, numbers are read and have a letter."""
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    letters = {int: "N", float: "X"}
    return {"type": hint, "metavar": letters[hint]} if hint in letters else {}


def _without_none(hint: Any) -> Any:
    """`int` of `int | None`; other unions as they are."""
    rest = [one for one in get_args(hint) if one is not NoneType]
    return rest[0] if get_origin(hint) in (Union, UnionType) and len(rest) == 1 else hint


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
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
        return all(_fits(one, hints[0]) for one in items)
    return len(items) == len(hints) and all(map(_fits, items, hints))


def _words(hint: Any) -> str:
    """What fits a type, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return f"a tuple, each {_words(arguments[0])}"
    return WORDS.get(hint) or (f"a {hint.__name__}" if isinstance(hint, type) else "a function")


def _check_bounds(name: str, value: Real, about: Mapping[str, Any]) -> None:
    """Also refuses NaN, of which no comparison holds, and infinities."""
    for bound, (holds, words) in BOUNDS.items():
        if bound in about and not holds(value, about[bound]):
            expected = about.get("expected", f"a number {words} {about[bound]}")
            raise wrong(name, f"{value}", expected, about.get("remedy", "correct it"))
    if not math.isfinite(value):
        raise wrong(name, f"{value}", "a finite number")
