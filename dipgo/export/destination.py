"""Decides which directories an export may replace."""

from __future__ import annotations

from pathlib import Path

from dipgo.common.lazy import import_name
from dipgo.engines.targets import TARGETS
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FORMAT
from dipgo.ir.manifest.file import has_format, is_export


def may_replace(out: Path) -> bool:
    """Returns whether dipgo wrote `out`, or it is empty: `--force` must delete nothing else."""
    if out.is_symlink() or not out.is_dir():
        return False
    entries = list(out.iterdir())
    return not entries or any(
        (
            is_export(out),
            has_format(out / ENGINES_FILE, ENGINES_FORMAT),
            *(import_name(row.is_finished)(entries) for row in TARGETS.values() if row.is_finished),
        )
    )
