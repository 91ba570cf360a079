"""Exports a model and a SubNet to an export directory."""

if __name__ != "dipgo.export":
    raise ImportError(
        f"this package is dipgo.export, not {__name__}: the `export` at the repository's root is "
        "a link to it; write `import dipgo.export`"
    )

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.engines.tensorrt.build import BuildOptions
    from dipgo.export.api import export
    from dipgo.export.refitting.refitted_copy import refit
    from dipgo.export.settings import ExportSettings
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "BuildOptions": "dipgo.engines.tensorrt.build",
            "ExportSettings": "dipgo.export.settings",
            "export": "dipgo.export.api",
            "refit": "dipgo.export.refitting.refitted_copy",
        },
        extras="export",
    )

__all__ = ["BuildOptions", "ExportSettings", "export", "refit"]
