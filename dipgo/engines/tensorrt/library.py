"""Imports TensorRT or TensorRT for RTX when it is first needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.common.packages import install
from dipgo.engines.targets import not_built


@dataclass(frozen=True, slots=True)
class Library:
    """A library of two with one API. `extra` is the extra of dipgo that installs it."""

    target: str
    title: str
    module: str
    extra: str

    def load(self) -> Any:
        """Imports and returns the Python module.

        Raises:
            DipgoError: It is not installed, or does not load.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise self.missing(f"no module that can be imported ({error})") from error

    def missing(self, problem: str) -> DipgoError:
        """Returns the error that says that the library cannot be used, and why."""
        return DipgoError(
            f"target {self.target}",
            found=problem,
            expected=f"the Python package of {self.title}",
            remedy=f"{install(self.extra)}; {_HINTS[self.target]}",
        )


_HINTS = {
    "tensorrt": "its libraries come from NVIDIA's own package index",
    "tensorrt-rtx": "it needs an x86-64 machine, but no GPU to build",
}

LIBRARIES: Mapping[str, Library] = {
    "tensorrt": Library("tensorrt", "TensorRT", "tensorrt", "tensorrt"),
    "tensorrt-rtx": Library("tensorrt-rtx", "TensorRT for RTX", "tensorrt_rtx", "tensorrt-rtx"),
}


def find_library(target: str) -> Library:
    """Returns the library of a target.

    Raises:
        DipgoError: The target is not TensorRT's.
    """
    if target not in LIBRARIES:
        raise not_built(target)
    return LIBRARIES[target]
