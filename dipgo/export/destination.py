"""Decides which directories an export may replace."""

from __future__ import annotations

from pathlib import Path

from dipgo.common.lazy import import_name
from dipgo.engines.contents import engine_contents, export_contents, foreign_content
from dipgo.engines.targets import TARGETS


def foreign(out: Path) -> str:
    """Returns what at `out` is not dipgo's, in words, or "": `--force` must delete nothing else."""
    return foreign_content(out, _contents(out), "an export")


def _contents(out: Path) -> set[str] | None:
    """Returns the files of what dipgo wrote: an export, engines, or what a target makes of one."""
    finished = (import_name(row.contents) for row in TARGETS.values() if row.contents)
    found = (contents(out) for contents in (export_contents, engine_contents, *finished))
    return next((contents for contents in found if contents is not None), None)
