"""Makes a command's options from the fields of its settings, and reads the settings from them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dipgo.common.cli import Parser, refuse_idle
from dipgo.common.errors import setting
from dipgo.common.settings import about_field, unmet_need

Settings = TypeVar("Settings")

ARGPARSE = ("metavar", "nargs", "action", "type", "choices")
"""The keys of a field's metadata that are passed to argparse."""


def add_options(
    parser: Parser,
    settings: type,
    *,
    only: Collection[str] = (),
    described: type | None = None,
) -> None:
    """Adds an option for every field of `settings` that has a help text.

    An option that is left out is None in the namespace, so that the dataclass's default applies.

    Args:
        parser: The command's parser.
        settings: A dataclass.
        only: Names of fields; empty for all.
        described: Settings whose fields describe the fields of the same name in `settings` that
            have no description.
    """
    hints = get_type_hints(settings)
    for setting_field in fields(settings):
        about, name = about_field(setting_field, described), setting_field.name
        if "help" in about and (not only or name in only):
            _add(parser, name, hints[name], setting_field.default, about)


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


def refuse_without_needs(options: Namespace, settings: Any) -> None:
    """Refuses options that are set and have no effect with the other settings.

    A number of 0 asks for nothing.

    Args:
        options: The parsed options.
        settings: The settings that were read from them.

    Raises:
        DipgoError: An option that is set needs another to have another value.
    """
    for item in fields(settings):
        unmet, own = unmet_need(settings, item.name), getattr(settings, item.name)
        if unmet and (isinstance(own, bool) or own != 0):
            other, value = unmet
            words = f"with {setting(other)} {value}"
            refuse_idle(options, [item.name], words, f"leave it out, or change {setting(other)}")


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
