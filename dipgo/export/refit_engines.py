"""What was built for an export goes with its graphs when they are given other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from dipgo.engine_manifest import ENGINES_FILE, ENGINES_FOLDER, encode_engines
from dipgo.engines.engine_dir import EngineDirectory
from dipgo.engines.export_dir import ExportDirectory
from dipgo.engines.tensorrt.library import LIBRARIES
from dipgo.engines.tensorrt.refit import open_refittable, refit_engines
from dipgo.export.prepare import Progress
from dipgo.hashes import sha256_of
from dipgo.manifest import MANIFEST_FILE


def check_can_carry(old: ExportDirectory) -> None:
    """Raises DipgoError for engines that cannot be refitted, before anything else is done."""
    for target in _targets(old):
        if target in LIBRARIES:
            open_refittable(old, target)
        else:
            _open_programs(old, target)


def carry_engines(old: ExportDirectory, new: Path, progress: Progress) -> None:
    """Programs of PyTorch's hold no weights and are copied; engines are refitted."""
    for target in _targets(old):
        if target in LIBRARIES:
            with progress(f"refit the engines of {target}"):
                refit_engines(old, new, target)
        else:
            _copy_programs(_open_programs(old, target), new)


def _targets(old: ExportDirectory) -> list[str]:
    folder = old.path / ENGINES_FOLDER
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def _open_programs(old: ExportDirectory, target: str) -> EngineDirectory:
    names = [*(one.name for one in old.manifest.segments), *old.manifest.parts]
    remedy = "export anew, or leave the engines out: --without-engines"
    return EngineDirectory.open(old, target, names, remedy)


def _copy_programs(programs: EngineDirectory, new: Path) -> None:
    folder = new / ENGINES_FOLDER / programs.path.name
    folder.mkdir(parents=True)
    for record in programs.manifest.engines.values():
        shutil.copyfile(programs.path / record.file, folder / record.file)
    manifest = msgspec.structs.replace(
        programs.manifest, plan_sha256=sha256_of(new / MANIFEST_FILE)
    )
    (folder / ENGINES_FILE).write_bytes(encode_engines(manifest))
