"""Builds engines of an export's graphs, in a folder of the export that appears whole."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dipgo.common.errors import DipgoError, setting
from dipgo.common.files import check_destination, staged_directory
from dipgo.common.hashes import sha256_of
from dipgo.common.links import check_within
from dipgo.common.machine import physical_memory
from dipgo.common.settings import check_settings, option
from dipgo.common.version import __version__
from dipgo.engines.contents import engine_contents, foreign_content
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import Launch, launches_of_parts, list_launches
from dipgo.engines.shape_profiles import profiles_of
from dipgo.engines.tensorrt import build_worker as build_engine
from dipgo.engines.tensorrt.build_cache import BuildCache
from dipgo.engines.tensorrt.build_worker import RECIPE, BuildRequest
from dipgo.engines.tensorrt.gpu import Gpu, gpu_to_build_for
from dipgo.engines.tensorrt.library import find_library
from dipgo.engines.tensorrt.worker import end_processes, run_in_a_process
from dipgo.ir.manifest.engines import (
    ENGINES_FILE,
    ENGINES_FOLDER,
    ENGINES_FORMAT,
    ENGINES_VERSION,
    EngineManifest,
    EngineRecord,
    RangeRecord,
    encode_engines,
)
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE
from dipgo.ir.types import PRECISIONS

GIB = 1 << 30

BUILDER_NBYTES = GIB

WEIGHT_COPIES = 3
"""The copies of the weights that a build needs in memory, besides the library.

Measured: 4.6 GB at the peak for a segment of 1.17 GB, in fp16, with TensorRT for RTX 1.7.
"""

WAIT_SECONDS = 0.05

OnBuilt = Callable[[str], object]
"""A function called with the name of an engine that was built, or taken from the cache."""


ENGINES = "engines"
"""The heading of their options in a command's help."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The options of a build.

    Without `compute_capabilities` engines are built for this machine's GPU; `jobs` of 0 stands for
    as many at a time as memory holds. Without a `cache` everything is built again. `refittable`
    engines can take other weights later.
    """

    compute_capabilities: tuple[str, ...] = option(
        (),
        help="GPUs to build for without one (tensorrt-rtx)",
        group=ENGINES,
        flag="--compute-capability",
        nargs="+",
        metavar="N.N",
    )
    jobs: int = option(
        0, help="builds at a time, 0 as memory allows (0)", group=ENGINES, metavar="JOBS", least=0
    )
    cache: Path | None = option(
        None,
        help="where built engines are kept (the user's cache)",
        group=ENGINES,
        flag="--build-cache",
        metavar="DIR",
        type=Path,
    )
    refittable: bool = option(
        False,
        help="engines that `refit` can give other weights (off)",
        group=ENGINES,
        flag="--refittable",
    )

    def __post_init__(self) -> None:
        check_settings(self)


DEFAULT_BUILD = BuildOptions()


def build_engines(
    path: str | Path,
    target: str,
    options: BuildOptions = DEFAULT_BUILD,
    on_built: OnBuilt = lambda name: None,
) -> Path:
    """Builds an engine of every graph of an export.

    Args:
        path: The export directory.
        target: `tensorrt` or `tensorrt-rtx`.
        options: The options of the build.
        on_built: Called with the name of each engine that is ready.

    Returns:
        The folder with the engines, which replaces an earlier one of the target.

    Raises:
        DipgoError: An engine cannot be built; an earlier folder of the target then stays.
    """
    version, gpu = check_can_build(target, options)
    export = ExportDirectory.open(path)
    out = export.path / ENGINES_FOLDER / target
    check_within(out, export.path)
    check_destination(out, force=True, foreign=_foreign)
    out.parent.mkdir(exist_ok=True)
    with staged_directory(out, force=True, foreign=_foreign) as staging:
        build = _Build(export, target, version, gpu, options, staging)
        records = build.run(build.jobs(options.jobs), on_built)
        manifest = EngineManifest(
            format=ENGINES_FORMAT,
            version=ENGINES_VERSION,
            dipgo=__version__,
            target=target,
            library_version=version,
            compute_capabilities=list(gpu.compute_capabilities),
            gpu=gpu.name,
            plan_sha256=sha256_of(export.path / MANIFEST_FILE),
            engines=records,
            refittable=options.refittable,
        )
        (staging / ENGINES_FILE).write_bytes(encode_engines(manifest))
    return out


def _foreign(out: Path) -> str:
    """Returns what at `out` is not of an earlier build, in words; "" if nothing is."""
    return foreign_content(out, engine_contents(out), "a folder of engines")


def check_can_build(target: str, options: BuildOptions) -> tuple[str, Gpu]:
    """Returns the library's version and the GPU to build for.

    Raises:
        DipgoError: The library or the GPU is missing, or the options ask for refittable engines
            without a GPU.
    """
    version = str(find_library(target).load().__version__)
    if importlib.util.find_spec("polygraphy") is None:
        raise find_library(target).missing("no package polygraphy, which builds")
    gpu = gpu_to_build_for(target, options.compute_capabilities)
    if options.refittable and gpu.name is None:
        raise DipgoError(
            setting("refittable"),
            found=f"{find_library(target).title} without a GPU",
            expected="a GPU: without one it builds no engines that can be refitted",
            remedy=f"build on such a GPU without {setting('compute_capabilities')}, "
            f"or leave {setting('refittable')} out",
        )
    return version, gpu


class _Build:
    """A build of all engines of an export."""

    def __init__(
        self,
        export: ExportDirectory,
        target: str,
        version: str,
        gpu: Gpu,
        options: BuildOptions,
        staging: Path,
    ) -> None:
        self.export, self.target, self.version, self.gpu = export, target, version, gpu
        self.cache = BuildCache(options.cache) if options.cache else None
        self.refittable, self.staging = options.refittable, staging
        self.profiles = profiles_of(_launches_of_all_sizes(export))
        parts = {name: part.file for name, part in export.manifest.parts.items()}
        self.graphs = {**export.engine_files, **parts}

    def jobs(self, wanted: int) -> int:
        """Returns how many engines to build at a time, so that the largest ones fit into memory."""
        if wanted:
            return wanted
        width = PRECISIONS[self.export.manifest.precision].nbytes
        largest = max(segment.parameters for segment in self.export.manifest.segments) * width
        fitting = available_memory() // (BUILDER_NBYTES + WEIGHT_COPIES * largest)
        return max(1, min(fitting, os.cpu_count() or 1))

    def run(self, jobs: int, on_built: OnBuilt) -> dict[str, EngineRecord]:
        """Builds the engines, the largest first; the first failure ends the build.

        After a failure those that are being built are still waited for, and kept in the cache; if
        a signal ends the command their processes end at once.
        """
        sizes = {segment.name: segment.parameters for segment in self.export.manifest.segments}
        names = sorted(self.graphs, key=lambda name: -sizes.get(name, 0))
        with ThreadPoolExecutor(jobs) as pool:
            futures = {name: pool.submit(self._one, name, on_built) for name in names}
            try:
                records = {name: future.result() for name, future in futures.items()}
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):
                    _end(futures.values())
                raise
        return {name: records[name] for name in self.graphs}

    def _one(self, name: str, on_built: OnBuilt) -> EngineRecord:
        request = BuildRequest(
            target=self.target,
            graph=str(self.export.path / self.graphs[name]),
            engine=str(self.staging / f"{name.replace(' ', '_')}.engine"),
            profile={
                tensor: RangeRecord(list(shapes.least), list(shapes.usual), list(shapes.most))
                for tensor, shapes in self.profiles[name].items()
            },
            compute_capabilities=[] if self.gpu.name else list(self.gpu.compute_capabilities),
            timing_cache=self._timing_cache(),
            refittable=self.refittable,
        )
        engine, key = Path(request.engine), self._key(request)
        if not (self.cache and self.cache.fetch(key, engine)):
            _build_in_a_process(name, request)
            if self.cache:
                self.cache.store(key, engine)
        on_built(name)
        nbytes = engine.stat().st_size
        return EngineRecord(engine.name, nbytes, sha256_of(engine), key, request.profile)

    def _key(self, request: BuildRequest) -> str:
        """Returns the hash of all that decides the engine's bytes; names and paths do not."""
        files = self.export.manifest.files
        parts = (
            files[Path(request.graph).name].sha256,
            files[WEIGHTS_FILE].sha256,
            request.profile,
            RECIPE,
            self.target,
            self.version,
            self.gpu.name,
            self.gpu.compute_capabilities,
            *(["refittable"] if self.refittable else []),
        )
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()

    def _timing_cache(self) -> str | None:
        """Returns the file of TensorRT's timings on this GPU; without a GPU nothing is timed."""
        if self.cache is None or self.gpu.name is None:
            return None
        parts = (self.target, self.version, self.gpu.name, *self.gpu.compute_capabilities)
        return str(self.cache.folder / f"{'-'.join(parts).replace(' ', '_')}.timing")


def _end(futures: Iterable[Future[EngineRecord]]) -> None:
    """Ends the builds that run, and any that is about to."""
    while any(future.running() for future in futures):
        end_processes()
        time.sleep(WAIT_SECONDS)


def _launches_of_all_sizes(export: ExportDirectory) -> Iterator[Launch]:
    """Yields the launches of all sizes of an export: one engine serves all of them."""
    for size in ("", *export.manifest.sizes):
        sized = ExportDirectory.open(export.path, size=size, check_hashes=False)
        yield from list_launches(sized.plan, sized.tables).launches
        yield from launches_of_parts(sized.manifest.parts)


def _build_in_a_process(name: str, request: BuildRequest) -> None:
    run_in_a_process(
        build_engine.__name__,
        request,
        f"engine {name}",
        expected=f"a graph that {find_library(request.target).title} builds",
        remedy="see what it says; a build needs some four times the weights in memory",
    )


def available_memory() -> int:
    """Returns the bytes available without swapping, or all memory if the system does not say."""
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return physical_memory() or BUILDER_NBYTES
