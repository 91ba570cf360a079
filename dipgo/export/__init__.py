"""Exports a model and a SubNet to an export directory."""

if __name__ != "dipgo.export":
    raise ImportError(
        f"this package is dipgo.export, not {__name__}: the `export` at the repository's root is "
        "a link to it; write `import dipgo.export`"
    )

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipgo.engines.tensorrt.build import BuildOptions
    from dipgo.export.api import export
    from dipgo.export.refitting.refit import refit
    from dipgo.export.settings import ExportSettings


__all__ = ["BuildOptions", "ExportSettings", "export", "refit"]

_HOMES = {
    "BuildOptions": "dipgo.engines.tensorrt.build",
    "ExportSettings": "dipgo.export.settings",
    "export": "dipgo.export.api",
    "refit": "dipgo.export.refitting.refit",
}


def __getattr__(name: str) -> Any:
    """Imports torch and all that exporting needs when one of the functions is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
