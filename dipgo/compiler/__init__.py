"""Compiles a model and a SubNet into a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.compiler.oracle import interpret
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "interpret": "dipgo.compiler.oracle",
        },
        extras="export",
    )

__all__ = ["interpret"]
