"""Imports what a name stands for when the name is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a `__getattr__` for `package` that imports names on first use.

    Args:
        package: The package's `__name__`, for the message of an unknown name.
        homes: The module that defines each name.
    """

    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return look_up


def import_name(path: str) -> Any:
    """Returns what `path` names, such as `package.module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
