"""What is written appears whole or not at all: made beside its destination, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dipgo.common.errors import DipgoError, setting
from dipgo.common.typed_json import read_file


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits; the file may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


EXPECTED = "a text file with one prompt a line"


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank. Raises DipgoError where there are none."""
    data = read_file(Path(path), expected=EXPECTED)
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DipgoError(
            str(path),
            found=f"bytes that are not UTF-8 ({error.reason} at {error.start})",
            expected=EXPECTED,
            remedy="save it as UTF-8",
        ) from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise DipgoError(
            str(path), found="no prompts", expected=EXPECTED, remedy="write at least one"
        )
    return prompts


def check_destination(out: Path, force: bool, may_replace: Callable[[Path], bool]) -> None:
    """Raises DipgoError where `out` exists (unless `force`) or could not be written.

    With `force` only what `may_replace` says is ours is replaced.
    """
    if os.path.lexists(out) and not force:
        raise DipgoError(
            str(out),
            found="something of that name",
            expected="a directory that does not exist",
            remedy=f"choose another name, or give {setting('force')} to replace an export",
        )
    if os.path.lexists(out) and not may_replace(out):
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


@contextmanager
def staged_directory(out: Path, force: bool, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a new directory beside `out`; on success it becomes `out`, else it is removed."""
    out = out.absolute()
    try:
        with _parents(out):
            staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            try:
                yield staging
                staging.chmod(0o755)
                check_destination(out, force, may_replace)
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
