"""Refits engines: those built to be refitted take over the weights of another export.

The other export has the same graphs. Much of a build is the choice of kernels, which stays.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from dipgo.common.errors import DipgoError, setting
from dipgo.common.hashes import sha256_of
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.tensorrt import refit_worker as refit_engine
from dipgo.engines.tensorrt.cuda import Driver
from dipgo.engines.tensorrt.library import find_library
from dipgo.engines.tensorrt.refit_worker import RefitRequest
from dipgo.engines.tensorrt.worker import run_in_a_process
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER, EngineRecord, encode_engines
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE


def open_refittable(export: ExportDirectory, target: str) -> EngineDirectory:
    """Returns the engines of an export, checked to be refittable on this machine.

    Raises:
        DipgoError: They were not built to be, or by another version, or for another GPU.
    """
    directory = EngineDirectory.open(
        export,
        target,
        [*export.engine_files, *export.manifest.parts],
        f"python -m dipgo.build {export.path} --target {target} --refittable, or leave the engines "
        f"out: {setting('without_engines')}",
    )
    if not directory.manifest.refittable:
        raise DipgoError(
            str(directory.path),
            found="engines that cannot be refitted",
            expected="engines that were built to be",
            remedy=directory.remedy,
        )
    library = find_library(target)
    directory.check_library(library.title, str(library.load().__version__))
    device = Driver.open(f"target {target}", "use a machine with an NVIDIA GPU").device()
    directory.check_gpu(device.name, device.compute_capability)
    return directory


def refit_engines(engines: EngineDirectory, old: ExportDirectory, new: Path) -> None:
    """Writes the engines of `old`, refitted, into the export directory `new`.

    Raises:
        DipgoError: An engine does not take the new weights.
    """
    folder = new / ENGINES_FOLDER / engines.path.name
    folder.mkdir(parents=True)
    parts = {name: part.file for name, part in old.manifest.parts.items()}
    graphs = {**old.engine_files, **parts}
    weights = sha256_of(new / WEIGHTS_FILE)
    records = {
        name: _refit(name, engines, new / graphs[name], folder, weights)
        for name in engines.manifest.engines
    }
    manifest = msgspec.structs.replace(
        engines.manifest, plan_sha256=sha256_of(new / MANIFEST_FILE), engines=records
    )
    (folder / ENGINES_FILE).write_bytes(encode_engines(manifest))


def _refit(
    name: str, engines: EngineDirectory, graph: Path, folder: Path, weights: str
) -> EngineRecord:
    record = engines.manifest.engines[name]
    refitted = folder / record.file
    request = RefitRequest(
        engines.manifest.target, str(engines.path / record.file), str(graph), str(refitted)
    )
    _refit_in_a_process(name, request)
    key = hashlib.sha256(f"{record.key} {weights}".encode()).hexdigest()
    return msgspec.structs.replace(
        record, nbytes=refitted.stat().st_size, sha256=sha256_of(refitted), key=key
    )


def _refit_in_a_process(name: str, request: RefitRequest) -> None:
    run_in_a_process(
        refit_engine.__name__,
        request,
        f"engine {name}",
        expected=f"an engine that {find_library(request.target).title} refits",
        remedy="see what it says; or leave the engines out "
        f"({setting('without_engines')}) and build them",
    )
