"""What an export may take the place of."""

from __future__ import annotations

from pathlib import Path

from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FORMAT
from dipgo.ir.manifest.file import has_format, is_export
from dipgo.run.triton.layout import is_model_repository


def may_replace(out: Path) -> bool:
    """Only what we have written, or an empty directory: --force must not delete anything else."""
    if out.is_symlink() or not out.is_dir():
        return False
    entries = list(out.iterdir())
    return not entries or any(
        (
            is_export(out),
            has_format(out / ENGINES_FILE, ENGINES_FORMAT),
            is_model_repository(entries),
        )
    )
