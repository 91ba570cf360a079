"""Export: from a model and a SubNet to an export directory."""

if __name__ != "dipgo.export":
    raise ImportError(
        f"this package is dipgo.export, not {__name__}: the `export` at the repository's root is "
        "a link to it; write `import dipgo.export`"
    )

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipgo.export.api import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    """Imports torch and all that exporting needs when `export` is first used."""
    if name != "export":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dipgo.export.api import export

    return export
