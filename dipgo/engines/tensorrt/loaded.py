"""Deserialises the engines of an export once, for all executors of a backend."""

from __future__ import annotations

from threading import Lock
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.launches import LaunchList
from dipgo.engines.tensorrt.cuda import Driver


class LoadedEngines:
    """The engines that are on the device; executors share them, and make their own contexts.

    Args:
        files: The serialised engines.
        library: The module `tensorrt` or `tensorrt_rtx`.
        driver: The CUDA driver of the device.
        check_hashes: Whether engines are compared with the hashes in their manifest.
    """

    def __init__(
        self, files: EngineDirectory, library: Any, driver: Driver, check_hashes: bool = True
    ) -> None:
        self.library, self.driver = library, driver
        self._files, self._check_hashes = files, check_hashes
        self._runtime = library.Runtime(library.Logger(library.Logger.ERROR))
        self._engines: dict[str, Any] = {}
        self._lock = Lock()

    def load(self, launches: LaunchList) -> dict[str, Any]:
        """Returns the engines of a list of launches by name.

        Raises:
            DipgoError: An engine does not load or fit its graph, or device memory does not suffice
                for it and for the buffers of the launches.
        """
        self._files.check_shapes(launches.launches)
        names = list(dict.fromkeys(launch.engine for launch in launches.launches))
        with self._lock:
            missing = [name for name in names if name not in self._engines]
            needed = self._files.nbytes(missing) + launches.nbytes
            self.driver.check_free(needed, "engines and slots")
            for name in missing:
                self._engines[name] = self._deserialise(name)
        return {name: self._engines[name] for name in names}

    def _deserialise(self, name: str) -> Any:
        engine = self._runtime.deserialize_cuda_engine(self._files.read(name, self._check_hashes))
        if engine is None:
            raise DipgoError(
                str(self._files.path / self._files.manifest.engines[name].file),
                found="an engine that the library does not load; it says why above",
                expected="one that was built with this version, for this GPU",
                remedy=self._files.remedy,
            )
        return engine
