"""Carries what was built for an export over to its copy with other weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dipgo.common.errors import DipgoError, setting
from dipgo.common.hashes import sha256_of
from dipgo.compiler.request import Progress
from dipgo.engines.contents import built_targets
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.targets import TARGETS, any_of, find_builder
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER, encode_engines
from dipgo.ir.manifest.records import MANIFEST_FILE


def open_built(old: ExportDirectory) -> dict[str, EngineDirectory]:
    """Returns the engines of an export by target.

    Raises:
        DipgoError: Engines cannot be carried over, such as engines of another GPU.
    """
    return {target: _open(old, target) for target in built_targets(old.path)}


def carry_engines(
    built: Mapping[str, EngineDirectory], old: ExportDirectory, new: Path, progress: Progress
) -> None:
    """Copies programs, which hold no weights, and refits engines."""
    for target, engines in built.items():
        if TARGETS[target].builder:
            with progress(f"refit the engines of {target}"):
                find_builder(target).refit(engines, old, new)
        else:
            _copy_programs(engines, new)


def _open(old: ExportDirectory, target: str) -> EngineDirectory:
    remedy = f"export again, or leave the engines out: {setting('without_engines')}"
    if target not in TARGETS:
        raise DipgoError(
            str(old.path / ENGINES_FOLDER / target),
            found="engines of a target that is not known",
            expected=f"those of {any_of(TARGETS)}",
            remedy=remedy,
        )
    if TARGETS[target].builder:
        return find_builder(target).open_refittable(old)
    names = [*(segment.name for segment in old.manifest.segments), *old.manifest.parts]
    return EngineDirectory.open(old, target, names, remedy)


def _copy_programs(programs: EngineDirectory, new: Path) -> None:
    folder = new / ENGINES_FOLDER / programs.path.name
    folder.mkdir(parents=True)
    for name, record in programs.manifest.engines.items():
        (folder / record.file).write_bytes(programs.read(name))
    manifest = msgspec.structs.replace(
        programs.manifest, plan_sha256=sha256_of(new / MANIFEST_FILE)
    )
    (folder / ENGINES_FILE).write_bytes(encode_engines(manifest))
