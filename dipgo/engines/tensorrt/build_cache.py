"""The build cache: engines by the hash of all that they were built of and for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dipgo.common.errors import DipgoError, setting


class BuildCache:
    """A folder of engines. An entry appears whole; several builds may share the folder.

    Raises:
        DipgoError: The folder cannot be used, here or in a method.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._reported():
            folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, key: str, engine: Path) -> bool:
        """Copies the entry to `engine` if it exists, and returns whether it does."""
        entry = self._entry(key)
        if not entry.is_file():
            return False
        with self._reported():
            shutil.copyfile(entry, engine)
        return True

    def store(self, key: str, engine: Path) -> None:
        """Keeps a copy of the engine."""
        temporary = self.folder / f".{key}.{os.getpid()}"
        try:
            with self._reported():
                shutil.copyfile(engine, temporary)
                temporary.replace(self._entry(key))
        finally:
            temporary.unlink(missing_ok=True)

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


def default_folder() -> Path:
    """Returns the folder for things of this user's programs that can be made again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "dipgo" / "engines"
