"""Load: an export directory becomes a runner."""

from __future__ import annotations

from pathlib import Path

from dipgo.engines.export_dir import ExportDirectory
from dipgo.engines.onnxruntime.executor import Executor
from dipgo.engines.onnxruntime.session import SessionSettings, check_provider
from dipgo.engines.runner import Runner


def load(
    path: str | Path, *, provider: str = "cpu", threads: int = 0, check_hashes: bool = True
) -> Runner:
    """A runner for the export at `path` on an ONNX Runtime provider, `cpu` or `cuda`.

    `threads` of 0 takes every core. `check_hashes=False` skips reading all of the weights to
    compare their hash with the manifest's. Raises DipgoError.
    """
    check_provider(provider)
    export = ExportDirectory.open(path, check_hashes=check_hashes)
    return Runner(export, Executor(export, SessionSettings(provider, threads)))
