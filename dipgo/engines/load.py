"""Load: an export directory becomes a runner."""

from __future__ import annotations

from pathlib import Path

from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import Runner
from dipgo.engines.targets import DEFAULT_TARGET, open_backend


def load(
    path: str | Path,
    *,
    size: str = "",
    target: str = DEFAULT_TARGET,
    provider: str | None = None,
    threads: int = 0,
    check_hashes: bool = True,
) -> Runner:
    """A runner for the export at `path`; `size`, such as `512x768`, is one of its further sizes.

    `target` and `provider` are those of a row of `dipgo.engines.targets`: without a provider, the
    row's first. `threads`, of ONNX Runtime, of 0 takes every core.
    `check_hashes=False` skips reading all of the weights to compare their hash with the
    manifest's. Raises DipgoError.
    """
    export = ExportDirectory.open(path, size=size, check_hashes=check_hashes)
    return Runner(export, open_backend(export, target, provider, threads, check_hashes))
