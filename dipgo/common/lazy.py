"""Imports what a name stands for when the name is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

OWN = "dipgo"


def lazy_names(
    package: str,
    homes: Mapping[str, str],
    *,
    extras: str = "cpu",
    packages: Collection[str] = (),
) -> Callable[[str], Any]:
    """Returns a `__getattr__` for `package` that imports names on first use.

    Args:
        package: The package's `__name__`, for the message of an unknown name.
        homes: The module that defines each name.
        extras: The extras of dipgo that install what those modules import.
        packages: Packages in it, which are imported on first use too.
    """

    def look_up(name: str) -> Any:
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            if str(error.name).split(".")[0] == OWN:
                raise
            from dipgo.common.packages import missing_package  # import dipgo does without it

            raise missing_package(f"{package}.{name}", error, "it", extras) from error

    return look_up


def import_name(path: str) -> Any:
    """Returns what `path` names, such as `package.module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
