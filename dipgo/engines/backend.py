"""Backends: what turns an export's launches into executors. A target names one."""

from __future__ import annotations

from dipgo.engines.export_dir import ExportDirectory
from dipgo.engines.runner import Backend
from dipgo.errors import DipgoError

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
    if target == "torch":
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


def _check_provider(target: str, provider: str | None) -> None:
    if provider not in (None, "cuda"):
        raise DipgoError(
            f"provider {provider}",
            found=f"one for the target {target}",
            expected="cuda, or none: TensorRT runs on GPUs only",
            remedy="leave --provider out, or use the target onnxruntime",
        )
