"""Writes files and directories whole or not at all, and checks paths before work begins."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dipgo.common.errors import DipgoError, is_unicode, setting
from dipgo.common.typed_json import read_file

EXPECTED = "a text file with one prompt a line"


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """Returns the lines of a text file that are not blank, stripped.

    Raises:
        DipgoError: The file cannot be read, is not UTF-8, or has no such line.
    """
    data = read_file(Path(path), expected=EXPECTED)
    try:
        lines = data.decode("utf-8-sig").splitlines()
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
    """Checks that `out` is free, or may be replaced, and can be written.

    Args:
        out: The directory to be written.
        force: Whether an existing `out` may be replaced.
        may_replace: Returns whether the path is one of ours; only such a path is replaced.

    Raises:
        DipgoError: `out` exists and may not be replaced, or could not be written.
    """
    _check_name(out)
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
    """Checks that files can be written in `out`, a folder that may exist already.

    Raises:
        DipgoError: `out` is not a folder, or no file can be made in it.
    """
    _check_name(out)
    if os.path.lexists(out) and not out.is_dir():
        raise DipgoError(
            str(out),
            found="something that is not a folder",
            expected="a folder, or a name that is free",
            remedy="choose another name",
        )
    _check_can_write(out, _nearest_folder(out.absolute()))


def check_file_destination(path: Path) -> None:
    """Checks that a file can be written at `path`; an existing file may be overwritten.

    Raises:
        DipgoError: Its folder does not exist, `path` is a folder, or no file can be made there.
    """
    _check_name(path)
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


def _check_name(path: Path) -> None:
    """Checks that a name can be written as text, which libraries ask for.

    Raises:
        DipgoError: It has bytes that are not UTF-8, which Python holds as surrogates.
    """
    if not is_unicode(str(path)):
        raise DipgoError(
            str(path),
            found="a name with bytes that are not UTF-8",
            expected="a name in UTF-8",
            remedy="choose another name",
        )


def _nearest_folder(path: Path) -> Path:
    """Returns `path`, or the nearest parent of it that exists."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def _check_can_write(path: Path, folder: Path) -> None:
    """Makes a file to see: permissions say nothing of read-only disks, or to the superuser."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_writable(path, f"{folder}, where no file can be made", error) from None


@contextmanager
def staged_directory(out: Path, force: bool, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a new directory next to `out`, which becomes `out` on success and else is removed.

    Raises:
        DipgoError: `out` cannot be written, or may not be replaced (`check_destination`).
    """
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
    """Yields a path next to `path` with the same suffix; on success that file becomes `path`.

    Raises:
        DipgoError: `path` cannot be written.
    """
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
    """Makes the folders above `path`; on an error it removes those that it made."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # a folder that others use by now is not empty
            for folder in missing:
                folder.rmdir()
        raise


def _swap(staging: Path, out: Path) -> None:
    """Puts `staging` in place of `out`; the old `out` is removed only afterwards."""
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
    """Returns the error to raise where nothing can be written at `path`.

    Args:
        path: The path that was asked for.
        problem: What was found there.
        error: The exception that the attempt raised; its reason is reported.
    """
    reason = getattr(error, "strerror", None) or error
    return DipgoError(
        str(path),
        found=f"{problem} ({reason})",
        expected="a place that may be written, with room enough",
        remedy="free some space or choose another place; nothing was left behind",
    )
