"""Checks the arguments of public functions against their signatures, before anything is done."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, get_origin, get_type_hints

from dipgo.common.errors import DipgoError, close_to, described, setting, wrong_type
from dipgo.common.settings import fits, members_of, plain, words_for
from dipgo.common.warn import warn

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

CHECKED = (Callable, Mapping, dict, Literal)
"""Generic types whose values are checked; others, such as arrays, are left to the functions."""


def checks_arguments(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Wraps a function so that a call with wrong arguments ends in a DipgoError.

    It refuses names that the function does not have, missing arguments, and values that are not of
    the annotated type, if the annotation is of numbers, texts, paths, functions, mappings and
    classes alone. Numbers of numpy become Python's.
    """
    signature = inspect.signature(function)

    @cache
    def hints() -> Mapping[str, Any]:
        return get_type_hints(function)

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _not_taken(function.__qualname__, signature, kwargs, error) from None
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            is_one = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if name in hints() and is_one:
                bound.arguments[name] = check_argument(name, value, hints()[name])
        return function(*bound.args, **bound.kwargs)

    return call


def _not_taken(
    function: str, signature: inspect.Signature, given: Iterable[str], error: TypeError
) -> DipgoError:
    """Returns the error for arguments that a function cannot be called with."""
    names = [name for name in signature.parameters if name not in ("self", "cls")]
    for name in given:
        if name not in names:
            return unknown_name(name, names, function)
    return DipgoError(
        f"{function}()",
        found=f"{error}",
        expected=f"the arguments {', '.join(names)}",
        remedy=f"see help(dipgo…{function}), and give all but the first by name",
    )


def unknown_name(name: str, names: Iterable[str], function: str) -> DipgoError:
    """Returns the error for a keyword argument that a function does not take.

    Args:
        name: The argument.
        names: The arguments that there are.
        function: The function's name.
    """
    known = list(names)
    return DipgoError(
        name,
        found=f"an argument that {function} does not take",
        expected=f"any of {', '.join(known)}",
        remedy=close_to(name, known, "leave it out"),
    )


def check_names(given: Iterable[str], names: Iterable[str], function: str) -> None:
    """Checks that the keyword arguments of a function are among those that there are.

    Raises:
        DipgoError: One is not.
    """
    known = list(names)
    for name in given:
        if name not in known:
            raise unknown_name(name, known, function)


def with_new_names(
    given: Mapping[str, Any], new_names: Mapping[str, str], function: str
) -> dict[str, Any]:
    """Returns keyword arguments by their present names, and warns of those with an earlier name.

    Args:
        given: The arguments.
        new_names: The present names by the earlier ones.
        function: The function's name.
    """
    for old in given:
        if old in new_names:
            warn(f"{function}: {old} is called {new_names[old]} now; the next release has no other")
    return {new_names.get(name, name): value for name, value in given.items()}


def check_argument(name: str, value: object, hint: Any) -> object:
    """Checks that an argument is of its annotated type, if that is one of those that are checked.

    Returns:
        The argument, numbers of numpy as Python's.

    Raises:
        DipgoError: It is of another type, or a path that no file can have.
    """
    members = members_of(hint)
    if not all(map(_is_checked, members)):
        return value
    if not any(_fits(value, member) for member in members):
        raise wrong_type(name, value, words_for(hint))
    if Path in members and isinstance(value, str | os.PathLike):
        check_path(name, value)
    return plain(value)


def _is_checked(hint: Any) -> bool:
    if get_origin(hint) is not None:
        return get_origin(hint) in CHECKED
    is_class = isinstance(hint, type) and hint not in (object, Any)
    return is_class and Protocol not in hint.__bases__


def _fits(value: object, hint: Any) -> bool:
    if hint is Path:
        return isinstance(value, os.PathLike)
    if get_origin(hint) is Literal and isinstance(value, str):
        return True  # the function knows which words there are, and says what each is for
    return fits(value, hint)


def check_path(name: str, value: object) -> Path:
    """Returns a path that a program has given.

    Raises:
        DipgoError: It is no path, or has a NUL character, which no path has.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise wrong_type(name, value, "a path: text, or a pathlib.Path")
    if "\0" in text:
        raise DipgoError(
            setting(name),
            found=f"a NUL character in {text!r}",
            expected="a path",
            remedy="give the path without it",
        )
    return Path(text)


def check_texts(name: str, value: object) -> tuple[str, ...]:
    """Returns several texts that a program has given.

    Raises:
        DipgoError: It is not a list or tuple of texts.
    """
    if not isinstance(value, list | tuple):
        raise wrong_type(name, value, "a list of texts")
    for text in value:
        if not isinstance(text, str):
            raise DipgoError(
                setting(name),
                found=f"{described(text)} among them",
                expected="a list of texts",
                remedy="give each as text",
            )
    return tuple(value)
