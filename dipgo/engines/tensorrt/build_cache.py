"""The build cache: engines by the hash of all that they were built of and for."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dipgo.common.errors import DipgoError, setting
from dipgo.common.hashes import sha256_of
from dipgo.common.leftovers import remove_leftovers
from dipgo.common.staged import in_place_of
from dipgo.common.warn import warn

_HEAD = b"dipgo engine sha256="
"""An entry begins with this, the engine's hash and a line feed; the engine's bytes follow."""

_CHUNK = 1 << 20


class BuildCache:
    """A folder of engines. An entry appears whole; several builds may share the folder.

    Raises:
        DipgoError: The folder cannot be used, here or in a method.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._reported():
            folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)

    def fetch(self, key: str, engine: Path) -> bool:
        """Copies the entry to `engine`, and returns whether there is one that is whole.

        A damaged entry is reported, and counts as none.
        """
        entry = self._entry(key)
        if not entry.is_file():
            return False
        with self._reported():
            if _copy_checked(entry, engine):
                return True
            engine.unlink(missing_ok=True)
        warn(f"{entry}: not the engine that was kept there; it is built again")
        return False

    def store(self, key: str, engine: Path) -> None:
        """Keeps a copy of the engine, with its hash."""
        with (
            self._reported(),
            in_place_of(self._entry(key)) as staging,
            staging.open("wb") as out,
            engine.open("rb") as content,
        ):
            out.write(_HEAD + sha256_of(engine).encode() + b"\n")
            shutil.copyfileobj(content, out, _CHUNK)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Reports a full disk, or a folder that is not a folder, in one line."""
        try:
            yield
        except OSError as error:
            raise DipgoError(
                f"build cache {self.folder}",
                found=f"a folder that cannot be used ({error.strerror})",
                expected="one that can be written to, with room for the engines",
                remedy=f"give another folder as {setting('cache')}, or build without one",
            ) from None

    def _entry(self, key: str) -> Path:
        return self.folder / f"{key}.engine"


def _copy_checked(entry: Path, engine: Path) -> bool:
    """Copies an entry's engine, and returns whether it has the hash that the entry begins with."""
    digest = hashlib.sha256()
    with entry.open("rb") as file, engine.open("wb") as out:
        head = file.read(len(_HEAD) + 2 * digest.digest_size + 1)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return head == _HEAD + digest.hexdigest().encode() + b"\n"


def default_folder() -> Path:
    """Returns the folder for things of this user's programs that can be made again.

    Raises:
        DipgoError: The user has no home.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The specification of XDG: a path that is not absolute does not count.
        home = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        raise DipgoError(
            setting("cache"),
            found="no home of this user, where built engines would be kept",
            expected="a folder to keep them in",
            remedy=f"give one as {setting('cache')}, set HOME, or give {setting('no_build_cache')}",
        ) from None
    return home / "dipgo" / "engines"
