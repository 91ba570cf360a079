"""The ONNX Runtime backend: sessions of the export's graphs."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from dipgo.common.errors import DipgoError
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import list_launches, list_part_launches
from dipgo.engines.onnxruntime.executor import Executor
from dipgo.engines.onnxruntime.session import SessionSettings, check_provider, make_session
from dipgo.engines.runner import BackendSettings

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeBackend:
    """Makes executors on ONNX Runtime, on the provider that the settings name."""

    def __init__(self, export: ExportDirectory, settings: BackendSettings) -> None:
        self._export = export
        self._settings = SessionSettings(settings.provider, settings.threads)
        check_provider(settings.provider)
        self._made: set[str] = set()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._lock = Lock()

    def plan(self) -> Executor:
        """Returns an executor of the plan."""
        self._check_may_make("plan")
        files = self._export.engine_files
        sessions = {name: self._session(file) for name, file in files.items()}
        launches = list_launches(self._export.plan, self._export.tables)
        return Executor(launches, sessions, self._settings)

    def part(self, name: str) -> Executor:
        """Returns an executor of a graph around the plan."""
        self._check_may_make(name)
        record = self._export.manifest.parts[name]
        sessions = {name: self._session(record.file)}
        return Executor(list_part_launches(name, record), sessions, self._settings)

    def _session(self, file: str) -> onnxruntime.InferenceSession:
        """Returns the one session of a graph, which all executors run."""
        with self._lock:
            if file not in self._sessions:
                self._sessions[file] = make_session(self._export.path / file, self._settings)
            return self._sessions[file]

    def _check_may_make(self, name: str) -> None:
        """Refuses a second executor where sessions capture launches: one thread may run those."""
        if self._settings.provider == "cuda-graph" and name in self._made:
            raise DipgoError(
                "provider cuda-graph",
                found="a clone",
                expected="one set of buffers for each session, which captures its launches",
                remedy="load the export again, or take the provider cuda",
            )
        self._made.add(name)
