"""What is written appears whole or not at all: made beside its destination, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dipgo.engine_manifest import ENGINES_FILE, ENGINES_FORMAT
from dipgo.errors import DipgoError
from dipgo.manifest import FORMAT, MANIFEST_FILE
from dipgo.model_repository import CONFIG_FILE, EXPORT_FOLDER, VERSION_FOLDER


def check_destination(out: Path, force: bool) -> None:
    """Raises DipgoError where `out` exists (unless `force`) or could not be written."""
    if os.path.lexists(out) and not force:
        raise DipgoError(
            str(out),
            found="something of that name",
            expected="a directory that does not exist",
            remedy="choose another name, or --force to replace an export",
        )
    if os.path.lexists(out) and not _may_replace(out):
        raise DipgoError(
            str(out),
            found="something that is not an export",
            expected="an export directory or the model repository of one, to replace",
            remedy="choose another name, or remove it yourself",
        )
    _check_can_write(out, _nearest_folder(out.absolute().parent))


def check_folder_destination(out: Path) -> None:
    """Raises DipgoError where no files could be written in `out`, a folder that may be there."""
    if os.path.lexists(out) and not out.is_dir():
        raise DipgoError(
            str(out),
            found="something that is not a folder",
            expected="a folder, or a name that is free",
            remedy="choose another name",
        )
    _check_can_write(out, _nearest_folder(out.absolute()))


def check_file_destination(path: Path) -> None:
    """Raises DipgoError where no file could be written at `path`; there may be one already."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DipgoError(
            str(path),
            found="no such folder",
            expected="a file in a folder that exists",
            remedy="make the folder first, or choose another",
        )
    if path.is_dir():
        raise DipgoError(
            str(path), found="a folder", expected="a file to write", remedy="name a file in it"
        )
    _check_can_write(path, folder)


def _nearest_folder(path: Path) -> Path:
    """`path`, or the first above it that exists."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def _check_can_write(path: Path, folder: Path) -> None:
    """Tries it: permissions do not tell of read-only disks, nor anything to the superuser."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_writable(path, f"{folder}, where no file can be made", error) from None


def _may_replace(out: Path) -> bool:
    """Only what we have written, or an empty directory: --force must not delete anything else."""
    if out.is_symlink() or not out.is_dir():
        return False
    entries = list(out.iterdir())
    return not entries or any(
        (
            _is_export(out),
            _has_format(out / ENGINES_FILE, ENGINES_FORMAT),
            _is_model_repository(entries),
        )
    )


def _is_export(path: Path) -> bool:
    return _has_format(path / MANIFEST_FILE, FORMAT)


def _has_format(manifest: Path, name: str) -> bool:
    if not manifest.is_file():
        return False
    with manifest.open("rb") as file:
        return f'"{name}"'.encode() in file.read(1000)


def _is_model_repository(entries: list[Path]) -> bool:
    """One model of one version, an export: with other models or versions it is a user's."""
    if len(entries) != 1 or not _is_export(entries[0] / EXPORT_FOLDER):
        return False
    return {path.name for path in entries[0].iterdir()} == {CONFIG_FILE, VERSION_FOLDER}


@contextmanager
def staged_directory(out: Path, force: bool) -> Iterator[Path]:
    """Yields a new directory beside `out`; on success it becomes `out`, else it is removed."""
    out = out.absolute()
    try:
        with _parents(out):
            staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            try:
                yield staging
                staging.chmod(0o755)
                check_destination(out, force)
                _swap(staging, out)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise not_writable(out, "a place that cannot be written", error) from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`, of the same ending; on success that file becomes `path`."""
    staging = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield staging
        staging.replace(path)
    except OSError as error:
        raise not_writable(path, "a place that cannot be written", error) from error
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Makes the folders above `path`; on an error those that were not there go again."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # not empty: someone else uses it by now
            for folder in missing:
                folder.rmdir()
        raise


def _swap(staging: Path, out: Path) -> None:
    """Puts `staging` in place of `out`; what was there is removed only afterwards."""
    if not out.exists():
        staging.rename(out)
        return
    retired = staging.with_name(f"{staging.name}.old")
    out.rename(retired)
    try:
        staging.rename(out)
    except OSError:
        retired.rename(out)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def not_writable(path: Path, problem: str, error: Exception) -> DipgoError:
    """What to raise where nothing can be written at `path`."""
    reason = getattr(error, "strerror", None) or error
    return DipgoError(
        str(path),
        found=f"{problem} ({reason})",
        expected="a place that may be written, with room enough",
        remedy="free some space or choose another place; nothing was left behind",
    )
