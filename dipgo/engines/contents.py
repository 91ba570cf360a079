"""Lists what an export directory holds, so that nothing else is replaced or removed with it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dipgo.common.errors import DipgoError
from dipgo.common.leftovers import is_leftover, is_temporary
from dipgo.common.typed_json import decode_json, read_file
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER, ENGINES_FORMAT
from dipgo.ir.manifest.file import has_format, is_export
from dipgo.ir.manifest.records import MANIFEST_FILE

_DEPTH = 3
"""Folders from an export's directory to the deepest of its files: `engines/<target>/file`."""


_WRITTEN = re.compile(
    r"plan-[\dx]+\.json|(weights|constants(-[\dx]+)?)\.safetensors|tokenizer\w*\.json|[^/]+\.onnx"
)
"""Names of files that exports are made of: a manifest may list others, and those are not ours."""

_BUILT = re.compile(r"[^/]+\.(engine|json|pt2)")
"""The same of folders of engines."""


class _Files(msgspec.Struct):
    """What a manifest of any version says of its files."""

    files: dict[str, Any] = {}


class _EngineFile(msgspec.Struct):
    file: str


class _Engines(msgspec.Struct):
    """What a manifest of engines says of its files."""

    engines: dict[str, _EngineFile] = {}


def built_targets(export: Path) -> list[str]:
    """Returns the names of the folders of engines, without what killed builds have left."""
    folder = export / ENGINES_FOLDER
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    # Versions before 0.2 built in folders whose names begin with a dot.
    return sorted(name for name in names if not is_temporary(name) and not name.startswith("."))


def export_contents(out: Path) -> set[str] | None:
    """Returns the relative paths of the files of an export, or None if `out` is not one."""
    if not is_export(out):
        return None
    listed = _read(out / MANIFEST_FILE, _Files)
    files = filter(_WRITTEN.fullmatch, listed.files if listed else ())
    contents = {MANIFEST_FILE, f"{ENGINES_FOLDER}/", *files}
    for target in built_targets(out):
        folder = f"{ENGINES_FOLDER}/{target}"
        built = engine_contents(out / folder)
        contents |= {f"{folder}/{name}" for name in built or ()}
    return contents


def engine_contents(folder: Path) -> set[str] | None:
    """Returns the names of the files of a folder of engines, or None if it is not one."""
    if not has_format(folder / ENGINES_FILE, ENGINES_FORMAT):
        return None
    listed = _read(folder / ENGINES_FILE, _Engines)
    if not listed:
        return None
    files = (engine.file for engine in listed.engines.values())
    return {ENGINES_FILE, *filter(_BUILT.fullmatch, files)}


def _read(path: Path, cls: type[Any]) -> Any:
    try:
        return decode_json(read_file(path, expected="a manifest"), cls, name=str(path), remedy="")
    except DipgoError:
        return None


def foreign_content(out: Path, contents: Collection[str] | None, kind: str) -> str:
    """Returns what at `out` does not belong there, in words; "" if all does, or it is empty.

    Args:
        out: The path that is to be replaced.
        contents: Relative paths of the files that belong there; None if `out` is not of the kind.
        kind: What it should be, as in "an export".
    """
    if out.is_symlink() or not out.is_dir():
        return f"something that is not {kind}"
    if contents is None:
        return f"something that is not {kind}" if any(out.iterdir()) else ""
    stranger = next(_strangers(out, "", contents), None)
    return f"{stranger}, which is no file of {kind}" if stranger else ""


def _strangers(folder: Path, prefix: str, contents: Collection[str]) -> Iterator[str]:
    """Yields the relative paths of all that is neither listed nor a folder of what is listed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            if name not in contents and not is_leftover(Path(entry.path)):
                yield name
        elif any(f"{listed}/".startswith(f"{name}/") for listed in contents):
            yield from _strangers(Path(entry.path), f"{name}/", contents)
        elif not is_leftover(Path(entry.path)):
            yield name


def check_outside_exports(path: Path) -> None:
    """Checks that a file to be written is none of an export's, which would no longer be whole.

    Raises:
        DipgoError: An export lists the file.
    """
    target = Path(os.path.realpath(path))
    for folder in target.parents[:_DEPTH]:
        name = target.relative_to(folder).as_posix()
        if name in (export_contents(folder) or ()):
            raise DipgoError(
                str(path),
                found=f"a file of the export {folder}",
                expected="a file that no export needs",
                remedy="choose another name",
            )
