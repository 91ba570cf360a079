"""dipgo: from a pruned diffusion model to deployable engines. Nothing heavy is imported here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipgo.pipeline import Pipeline
    from dipgo.subnet import SubNet

__version__ = "0.1.0"
__all__ = ["Pipeline", "SubNet"]

_HOMES = {"Pipeline": "dipgo.pipeline", "SubNet": "dipgo.subnet"}


def __getattr__(name: str) -> Any:
    """Imports `dipgo.Pipeline` and `dipgo.SubNet` when they are first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
