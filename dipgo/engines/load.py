"""Loads an export directory as a runner."""

from __future__ import annotations

from pathlib import Path

from dipgo.common.arguments import checks_arguments
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import Runner
from dipgo.engines.targets import DEFAULT_TARGET, open_backend


@checks_arguments
def load(
    path: str | Path,
    *,
    size: str = "",
    target: str = DEFAULT_TARGET,
    provider: str | None = None,
    threads: int = 0,
    check_hashes: bool = True,
    clones: int = 1,
) -> Runner:
    """Returns a runner for an export.

    Args:
        path: The export directory.
        size: A further size of the export, such as `512x768`; "" for its first.
        target: The name of a row of `dipgo.engines.targets`.
        provider: A provider of that row; None for its first.
        threads: Threads of ONNX Runtime; 0 takes every core. At most `MOST_THREADS` of
            `dipgo.common.machine`.
        check_hashes: Whether to read all of the weights and compare their hash with the manifest's.
        clones: Runs at a time, if several threads run it: each takes buffers of its own.

    Raises:
        DipgoError: An argument is wrong, the export is damaged, or the target or provider is not
            available.
    """
    export = ExportDirectory.open(path, size=size, check_hashes=check_hashes)
    backend = open_backend(export, target, provider, threads, check_hashes)
    return Runner(export, backend, clones, ", ".join(filter(None, (target, provider))))
