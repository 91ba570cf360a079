"""The builder of TensorRT's engines, as the table of targets names it."""

from __future__ import annotations

from pathlib import Path

from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.tensorrt.build import BuildOptions, OnBuilt, build_engines, check_can_build
from dipgo.engines.tensorrt.refit import open_refittable, refit_engines


class TensorRTBuilder:
    """Builds and refits the engines of TensorRT, or of TensorRT for RTX."""

    def __init__(self, target: str) -> None:
        self._target = target

    def check(self, options: BuildOptions) -> None:
        """Raises DipgoError without the library, or a GPU that the options need."""
        check_can_build(self._target, options)

    def build(self, path: Path, options: BuildOptions, on_built: OnBuilt) -> Path:
        """Builds an engine of every graph and returns their folder."""
        return build_engines(path, self._target, options, on_built)

    def open_refittable(self, export: ExportDirectory) -> EngineDirectory:
        """Returns the export's engines, if the library can refit them on this machine."""
        return open_refittable(export, self._target)

    def refit(self, engines: EngineDirectory, old: ExportDirectory, new: Path) -> None:
        """Writes the engines with the weights of the export `new` into it."""
        refit_engines(engines, old, new)
