"""Export: from a model and a SubNet to an export directory."""

if __name__ != "dipgo.export":
    raise ImportError(
        f"this package is dipgo.export, not {__name__}: the `export` at the repository's root is "
        "a link to it; write `import dipgo.export`"
    )

from dipgo.export.api import export

__all__ = ["export"]
