"""The TensorRT backend: checks library, GPU and engines before anything is loaded."""

from __future__ import annotations

from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import LaunchList, list_launches, list_part_launches
from dipgo.engines.runner import BackendSettings
from dipgo.engines.tensorrt.cuda import Driver
from dipgo.engines.tensorrt.executor import Executor
from dipgo.engines.tensorrt.library import find_library
from dipgo.engines.tensorrt.loaded import LoadedEngines


class TensorRTBackend:
    """The makers of executors on TensorRT, or on TensorRT for RTX.

    Args:
        export: The export whose engines are loaded.
        target: `tensorrt` or `tensorrt-rtx`.
        check_hashes: Whether engines are compared with the hashes in their manifest.

    Raises:
        DipgoError: The engines, the library or the GPU are missing or do not fit together.
    """

    def __init__(self, export: ExportDirectory, settings: BackendSettings) -> None:
        self._export = export
        target = settings.target
        self._engines = EngineDirectory.open(
            export,
            target,
            [*export.engine_files, *export.manifest.parts],
            f"python -m dipgo.build {export.path} --target {target}",
        )
        library = find_library(target)
        self._library = library.load()
        self._engines.check_library(library.title, str(self._library.__version__))
        self._driver = Driver.open(f"target {target}", "use a machine with an NVIDIA GPU")
        device = self._driver.device()
        self._engines.check_gpu(device.name, device.compute_capability)
        self._loaded = LoadedEngines(
            self._engines, self._library, self._driver, settings.check_hashes
        )

    def plan(self) -> Executor:
        """Returns an executor of the plan."""
        return self._executor(list_launches(self._export.plan, self._export.tables))

    def part(self, name: str) -> Executor:
        """Returns an executor of one of the graphs around the plan."""
        return self._executor(list_part_launches(name, self._export.manifest.parts[name]))

    def _executor(self, launches: LaunchList) -> Executor:
        return Executor(launches, self._loaded)
