"""The table of targets: a row for each value of `--target`, read by all that exports or runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dipgo.common.errors import DipgoError, close_to, setting, wrong
from dipgo.common.lazy import import_name
from dipgo.common.machine import MOST_THREADS
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import Backend, BackendSettings

if TYPE_CHECKING:
    from dipgo.engines.engine_directory import EngineDirectory
    from dipgo.engines.tensorrt.build import BuildOptions


@dataclass(frozen=True, slots=True)
class Target:
    """A target. Names of code, `package.module:name`, are imported when they are first used.

    Attributes:
        name: As in `--target`, and the folder of its engines in an export.
        title: As in messages.
        backend: Class of the backend, called with an `ExportDirectory` and `BackendSettings`.
            None where exports for this target are run by another target, or elsewhere.
        providers: Values of `--provider`, the default first. Without a backend: the providers of
            another target that need an export for this one.
        threads: Whether it takes `--threads`.
        package: Package that `backend` imports at once; its absence is reported as an error.
        builder: Class of the `Builder` of its engines, called with the target's name.
        change_graph: Function that changes an `onnx_ir.Model` in place, for each graph.
        programs: Class of a `dipgo.export.writer.Programs`: it writes what is run in place of
            the graphs.
        finish: Function of the export's directory, called when that is complete.
        contents: Function of a directory that returns the relative paths of the files that
            `finish` has made of an export there, or None if it has not: `--force` may replace it
            if it holds nothing else.
    """

    name: str
    title: str
    backend: str | None = None
    providers: tuple[str, ...] = ()
    threads: bool = False
    package: str | None = None
    builder: str | None = None
    change_graph: str | None = None
    programs: str | None = None
    finish: str | None = None
    contents: str | None = None


_OPENVINO = ("openvino", "openvino-bf16")
_TENSORRT = "dipgo.engines.tensorrt"

_ROWS = (
    Target(
        name="onnxruntime",
        title="ONNX Runtime",
        backend="dipgo.engines.onnxruntime.backend:OnnxRuntimeBackend",
        providers=("cpu", "cuda", "cuda-graph", *_OPENVINO),
        threads=True,
    ),
    Target(
        name="openvino",
        title="OpenVINO",
        providers=_OPENVINO,
        change_graph="dipgo.export.lower.openvino_opset:decompose",
    ),
    Target(
        name="torch",
        title="PyTorch",
        backend="dipgo.engines.torch.backend:TorchBackend",
        providers=("cuda", "cpu"),
        package="torch",
        programs="dipgo.export.lower.torch_program:TorchPrograms",
    ),
    Target(
        name="tensorrt",
        title="TensorRT",
        backend=f"{_TENSORRT}.backend:TensorRTBackend",
        providers=("cuda",),
        builder=f"{_TENSORRT}.builder:TensorRTBuilder",
    ),
    Target(
        name="tensorrt-rtx",
        title="TensorRT for RTX",
        backend=f"{_TENSORRT}.backend:TensorRTBackend",
        providers=("cuda",),
        builder=f"{_TENSORRT}.builder:TensorRTBuilder",
    ),
    Target(
        name="triton",
        title="Triton Inference Server",
        finish="dipgo.run.triton.write:write_model_repository",
        contents="dipgo.run.triton.layout:repository_contents",
    ),
)

TARGETS: dict[str, Target] = {row.name: row for row in _ROWS}
"""Every target, by name."""

DEFAULT_TARGET = "onnxruntime"


class Builder(Protocol):
    """Builds the engines of one target, and gives them other weights."""

    def check(self, options: BuildOptions) -> object:
        """Checks that engines can be built.

        Raises:
            DipgoError: Nothing can be built with these options on this machine.
        """

    def build(self, path: Path, options: BuildOptions, on_built: Callable[[str], object]) -> Path:
        """Builds every engine of the export at `path` and returns their folder."""

    def open_refittable(self, export: ExportDirectory) -> EngineDirectory:
        """Returns the export's engines.

        Raises:
            DipgoError: They cannot be refitted.
        """

    def refit(self, engines: EngineDirectory, old: ExportDirectory, new: Path) -> None:
        """Writes the engines of the export `old` into the export `new`, with its weights."""


def run_targets() -> tuple[str, ...]:
    """Returns the targets that run exports."""
    return tuple(row.name for row in TARGETS.values() if row.backend)


def build_targets() -> tuple[str, ...]:
    """Returns the targets for which engines are built."""
    return tuple(row.name for row in TARGETS.values() if row.builder)


def run_providers() -> tuple[str, ...]:
    """Returns the providers of all targets that run exports."""
    rows = (TARGETS[name] for name in run_targets())
    return tuple(dict.fromkeys(provider for row in rows for provider in row.providers))


def any_of(names: Iterable[str]) -> str:
    """Returns the names as a sentence has them: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def target_to_export(target: str, provider: str | None) -> str:
    """Returns the target that an export must be for, to run on `target` with this provider."""
    needed = (row.name for row in TARGETS.values() if not row.backend and provider in row.providers)
    return next(needed, target)


def open_backend(
    export: ExportDirectory,
    target: str,
    provider: str | None,
    threads: int,
    check_hashes: bool = True,
) -> Backend:
    """Returns the backend of a target.

    Args:
        export: What it is to run.
        target: Name of a row that has a backend.
        provider: One of the row's, None for the first of them.
        threads: Threads of the CPU, 0 for every core.
        check_hashes: Whether files are compared with their hashes in the manifest.

    Raises:
        DipgoError: The target or provider is unknown, or cannot be used on this machine.
    """
    if target not in run_targets():
        raise DipgoError(
            f"target {target}",
            found="a target that is not known",
            expected=", ".join(run_targets()),
            remedy=close_to(target, run_targets(), "name one of these"),
        )
    row = TARGETS[target]
    _check_threads(row, threads)
    _check_package(row)
    provider = _check_provider(row, provider)
    make: Any = import_name(row.backend or "")
    backend: Backend = make(export, BackendSettings(target, provider, threads, check_hashes))
    return backend


def find_builder(target: str) -> Builder:
    """Returns the builder of a target.

    Raises:
        DipgoError: The target has no builder.
    """
    if target not in build_targets():
        raise not_built(target)
    make: Callable[[str], Builder] = import_name(TARGETS[target].builder or "")
    return make(target)


def not_built(target: str) -> DipgoError:
    """Returns the error for a target without a builder."""
    if target == DEFAULT_TARGET:
        remedy = "ONNX Runtime runs the graphs as they are"
    elif target in TARGETS:
        title = TARGETS[target].title
        remedy = f"for {title} export again: python -m dipgo.export … --target {target}"
    else:
        remedy = close_to(target, build_targets(), "name one of these")
    return DipgoError(
        f"target {target}",
        found="a target for which no engines are built",
        expected=" or ".join(build_targets()),
        remedy=remedy,
    )


def check_threads(threads: int) -> None:
    """Checks that a machine can be asked for so many threads.

    Raises:
        DipgoError: It is below 0, or above what this machine is asked for at most.
    """
    if not 0 <= threads <= MOST_THREADS:
        expected = f"a whole number from 0, for every core, to {MOST_THREADS} on this machine"
        raise wrong("threads", threads, expected, "0 takes every core")


def _check_threads(row: Target, threads: int) -> None:
    check_threads(threads)
    if threads and not row.threads:
        raise DipgoError(
            f"threads {threads}",
            found=f"a number of threads for the target {row.name}",
            expected="none: it is ONNX Runtime's",
            remedy=f"leave {setting('threads')} out",
        )


def _check_package(row: Target) -> None:
    if row.package and find_spec(row.package) is None:
        raise DipgoError(
            f"target {row.name}",
            found=f"no package {row.package}",
            expected=row.title,
            remedy=f"pip install {row.package}, or use the target {DEFAULT_TARGET}",
        )


def _check_provider(row: Target, provider: str | None) -> str:
    """Returns the provider, or the row's own for None."""
    if provider is None or provider in row.providers:
        return provider or row.providers[0]
    names = ", ".join(row.providers)
    raise DipgoError(
        f"provider {provider}",
        found=f"a name that is not known for the target {row.name}",
        expected=f"one of {names}" if len(row.providers) > 1 else f"{names}, or none",
        remedy=close_to(
            provider, row.providers, f"correct the name, or leave {setting('provider')} out"
        ),
    )
