"""Makes sessions with the provider that was asked for, or none at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.machine import physical_memory
from dipgo.common.packages import install
from dipgo.engines.onnxruntime import openvino
from dipgo.ir.manifest.records import WEIGHTS_FILE

if TYPE_CHECKING:
    import onnxruntime


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cuda-graph": "CUDAExecutionProvider",
    **dict.fromkeys(openvino.PRECISIONS, openvino.PROVIDER),
}
"""`cuda-graph` makes ONNX Runtime capture every launch as a CUDA graph when it first runs."""

DEVICES = dict.fromkeys(PROVIDERS, "cpu") | {"cuda": "cuda", "cuda-graph": "cuda"}

EXTRAS = {"cpu": "cpu", "cuda": "gpu", "cuda-graph": "gpu"}

EXTRAS |= dict.fromkeys(openvino.PRECISIONS, "openvino")
"""The extra to install for a provider; no two of the extras can be installed together."""


FATAL = 4
"""The severity of ONNX Runtime's log from which on messages are printed."""

LINKS_ALLOWED = (1, 24, 4)
"""The version from which on ONNX Runtime reads weights behind links again."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """The settings of sessions; `threads` of 0 lets ONNX Runtime take every core."""

    provider: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise DipgoError(
                "threads",
                found=str(self.threads),
                expected="0 or more",
                remedy="0 takes every core",
            )


def check_provider(provider: str) -> None:
    """Checks that the installed ONNX Runtime has the provider.

    Raises:
        DipgoError: The provider is unknown or not in the installed package.
    """
    if provider not in PROVIDERS:
        raise DipgoError(
            f"provider {provider}",
            found="a name that is not known",
            expected=f"one of {', '.join(PROVIDERS)}",
            remedy="correct the name",
        )
    available = _import_onnxruntime().get_available_providers()
    if PROVIDERS[provider] not in available:
        raise DipgoError(
            f"provider {provider}",
            found=f"an onnxruntime with {', '.join(available)}",
            expected=PROVIDERS[provider],
            remedy=f"{install(EXTRAS[provider])}, where no other onnxruntime is installed",
        )
    if provider in openvino.PRECISIONS:
        openvino.check_processor(provider)


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise DipgoError(
            "onnxruntime",
            found="no such package",
            expected="ONNX Runtime, which runs the engines",
            remedy=f"{install('cpu')}, or with gpu or openvino in place of cpu",
        ) from None
    return onnxruntime


def make_session(path: Path, settings: SessionSettings) -> onnxruntime.InferenceSession:
    """Returns a session of the graph at `path`; its weights lie next to it.

    Raises:
        DipgoError: The graph cannot be loaded with the provider.
    """
    runtime = _import_onnxruntime()
    _share_arena()
    wanted = PROVIDERS[settings.provider]
    try:
        options, held = _options(settings), _hand_over_linked(runtime, path)
        if held:
            options.add_external_initializers_from_files_in_memory(
                list(held), list(held.values()), [content.nbytes for content in held.values()]
            )
        session: onnxruntime.InferenceSession = runtime.InferenceSession(
            path, options, providers=[(wanted, _provider_options(settings))]
        )
    except Exception as error:  # ONNX Runtime's own exceptions have no public name
        raise openvino.explain(path, str(error)) or DipgoError(
            str(path),
            found=f"what ONNX Runtime {runtime.__version__} cannot load: {error}",
            expected="a graph of the export, with its weights next to it",
            remedy="export again, or install a newer onnxruntime",
        ) from error
    obtained = session.get_providers()
    if obtained[0] != wanted:
        raise DipgoError(
            f"provider {settings.provider}",
            found=f"a session on {obtained[0]}",
            expected=wanted,
            remedy="see ONNX Runtime's log above for why the provider could not start",
        )
    if wanted == openvino.PROVIDER:
        openvino.check_nodes(path, session)
    return session


def _provider_options(settings: SessionSettings) -> dict[str, str]:
    """Returns options that keep fp32 as it is: by default CUDA rounds factors to TF32."""
    if settings.provider in openvino.PRECISIONS:
        return openvino.provider_options(settings.provider, settings.threads)
    if DEVICES[settings.provider] == "cpu":
        return {}
    graph = settings.provider == "cuda-graph"
    return {"use_tf32": "0"} | ({"enable_cuda_graph": "1"} if graph else {})


def _hand_over_linked(runtime: Any, path: Path) -> dict[str, NDArray[np.uint8]]:
    """Returns the contents of weights that ONNX Runtime would not read itself, by file name.

    ONNX Runtime 1.24.0 to 1.24.3 refuses weights behind a link that leads out of the graph's
    folder, and in the Hub's cache every file is such a link. They are mapped, not read.
    """
    version = tuple(int(number) for number in re.findall(r"\d+", runtime.__version__)[:3])
    weights = path.parent / WEIGHTS_FILE
    if not (1, 24) <= version < LINKS_ALLOWED or not weights.is_symlink():
        return {}
    if weights.resolve().is_relative_to(path.parent.resolve()):
        return {}
    return {WEIGHTS_FILE: np.memmap(weights, np.uint8, "r")}


@cache
def _share_arena() -> None:
    """Makes one arena for host memory of all sessions of the process, kept until it ends.

    Sessions run one after another: with an arena each, their peaks would add up. It is made once a
    process, as a second arena would replace the first for all sessions made after it. It takes no
    more than the machine has: a graph, which may be a stranger's, then fails, and not the machine.
    """
    runtime = _import_onnxruntime()
    arena = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = runtime.OrtMemoryInfo("Cpu", arena, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(
        memory, runtime.OrtArenaCfg(physical_memory() or 0, -1, -1, -1)
    )


def _options(settings: SessionSettings) -> onnxruntime.SessionOptions:
    options: onnxruntime.SessionOptions = _import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = settings.threads
    # What fails is an exception, too; the log would print names of a stranger's graph as they are.
    options.log_severity_level = FATAL
    # A plan alternates between sessions, each with its own threads: those of a session that
    # has ended its run must not spin while those of the next work.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    if settings.provider in openvino.PRECISIONS:
        for name, value in openvino.SESSION_ENTRIES.items():
            options.add_session_config_entry(name, value)
    return options
