"""A directory that appears whole or not at all: written beside its destination, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dipgo.errors import DipgoError


def check_destination(out: Path, force: bool) -> None:
    """Raises DipgoError where `out` exists (unless `force`) or could not be written."""
    if out.exists() and not force:
        raise DipgoError(
            str(out),
            found="something of that name",
            expected="a directory that does not exist",
            remedy="choose another name, or --force to replace it",
        )
    if out.exists() and not _may_replace(out):
        raise DipgoError(
            str(out),
            found="something that is not an export",
            expected="an export directory to replace",
            remedy="choose another name",
        )
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK) or not parent.is_dir():
        raise _not_writable(out, f"{parent} is not a directory that can be written")


def _may_replace(out: Path) -> bool:
    """Only an export, or an empty directory: --force must not delete anything else."""
    return out.is_dir() and ((out / "plan.json").exists() or not any(out.iterdir()))


@contextmanager
def staged_directory(out: Path) -> Iterator[Path]:
    """Yields a new directory beside `out`; on success it becomes `out`, else it is removed."""
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise _not_writable(out, error.strerror or str(error)) from None
    try:
        yield staging
        staging.chmod(0o755)
        _swap(staging, out)
    except OSError as error:
        raise _not_writable(out, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, out: Path) -> None:
    """Puts `staging` in place of `out`; what was there is removed only afterwards."""
    if not out.exists():
        staging.rename(out)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    out.rename(retired / out.name)
    staging.rename(out)
    shutil.rmtree(retired, ignore_errors=True)


def _not_writable(out: Path, problem: str) -> DipgoError:
    return DipgoError(
        str(out),
        found=problem,
        expected="a place with room to write the export",
        remedy="free some space or choose another place; nothing was left behind",
    )
