"""Backends: what turns an export's launches into executors. A target names one."""

from __future__ import annotations

from importlib.util import find_spec

from dipgo.common.errors import DipgoError
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import Backend

TARGETS = ("onnxruntime", "torch", "tensorrt", "tensorrt-rtx")


def open_backend(
    export: ExportDirectory,
    target: str,
    provider: str | None,
    threads: int,
    check_hashes: bool = True,
) -> Backend:
    """`provider` is `cpu` or `cuda`, None for the target's own. Raises DipgoError."""
    if target == "onnxruntime":
        from dipgo.engines.onnxruntime.backend import OnnxRuntimeBackend
        from dipgo.engines.onnxruntime.session import SessionSettings

        return OnnxRuntimeBackend(export, SessionSettings(provider or "cpu", threads))
    _check_no_threads(target, threads)
    if target == "torch":
        _check_torch()
        from dipgo.engines.torch.backend import TorchBackend

        return TorchBackend(export, provider or "cuda", check_hashes)
    if target in TARGETS:
        from dipgo.engines.tensorrt.backend import TensorRTBackend

        _check_provider(target, provider)
        return TensorRTBackend(export, target, check_hashes)
    raise DipgoError(
        f"target {target}",
        found="a target that is not known",
        expected=", ".join(TARGETS),
        remedy="name one of these",
    )


def _check_no_threads(target: str, threads: int) -> None:
    if threads:
        raise DipgoError(
            f"threads {threads}",
            found=f"a number of threads for the target {target}",
            expected="none: it is ONNX Runtime's",
            remedy="leave --threads out",
        )


def _check_torch() -> None:
    if find_spec("torch") is None:
        raise DipgoError(
            "target torch",
            found="no package torch",
            expected="PyTorch",
            remedy="pip install torch, or use the target onnxruntime",
        )


def _check_provider(target: str, provider: str | None) -> None:
    if provider not in (None, "cuda"):
        raise DipgoError(
            f"provider {provider}",
            found=f"one for the target {target}",
            expected="cuda, or none: TensorRT runs on GPUs only",
            remedy="leave --provider out, or use the target onnxruntime",
        )
