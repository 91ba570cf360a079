"""The device that is measured: whether it is there, what it is, and its clock and memory."""

from __future__ import annotations

import gc
import re
import subprocess
from collections.abc import Callable
from importlib.metadata import distributions
from time import perf_counter

import torch

import dipgo
from dipgo.common.errors import DipgoError
from dipgo.common.machine import describe_machine

DEVICES = ("cuda", "cpu")
CPU_NOTE = "cpu, a test of the script, not a measurement"
PACKAGES = re.compile(
    r"onnx|onnx-ir|onnxscript|tensorrt.*|polygraphy|triton|transformers|cuda-bindings"
)


def check_device(device: str) -> None:
    """Raises DipgoError where CUDA is asked for and not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise DipgoError(
            "--device cuda",
            found=f"PyTorch {torch.__version__} without a CUDA device",
            expected="an NVIDIA GPU, and a PyTorch built for CUDA",
            remedy="use a machine with a GPU; --device cpu only tests the script",
        )


def describe(device: str) -> dict[str, str]:
    """The device, its driver, the machine around it, versions and the date."""
    found = {"device": CPU_NOTE} if device == "cpu" else _describe_gpu()
    named = ((str(one.metadata["Name"]).lower(), one.version) for one in distributions())
    hyphened = ((name.replace("_", "-"), version) for name, version in named)
    versions = {name: version for name, version in hyphened if PACKAGES.fullmatch(name)}
    return {
        **found,
        **describe_machine(),
        "dipgo": dipgo.__version__,
        **dict(sorted(versions.items())),
    }


def silence_diffusers() -> None:
    """Its hints, such as that a converted denoiser had better been loaded so, are not ours."""
    from diffusers.utils import logging

    logging.set_verbosity_error()


def _describe_gpu() -> dict[str, str]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "device_memory_nbytes": str(properties.total_memory),
        "driver": _driver_version(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def _driver_version() -> str:
    """By nvidia-smi: PyTorch knows only which CUDA the driver is for."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "unknown: nvidia-smi did not answer"
    return answer.stdout.partition("\n")[0].strip()


def slug(name: str) -> str:
    """The device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def seconds_of(work: Callable[[], object], device: str) -> float:
    """From the first to the last of what `work` queues, by events on the current stream."""
    if device == "cpu":
        started = perf_counter()
        work()
        return perf_counter() - started
    begin, end = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    begin.record()
    work()
    end.record()
    end.synchronize()
    seconds: float = begin.elapsed_time(end) / 1e3
    return seconds


def release(device: str) -> None:
    """Gives unused memory back to the device, so that the next measurement starts from the same."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


class MemoryMeter:
    """Device memory from here on; all zeros on the CPU."""

    def __init__(self, device: str) -> None:
        self._device = device
        release(device)
        self._before = self._used()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _used(self) -> int:
        """By all that uses the device: TensorRT and ONNX Runtime allocate past PyTorch."""
        if self._device == "cpu":
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free

    def read(self) -> dict[str, int]:
        """Growth of what the device has given out, and the peak of PyTorch's own tensors.

        The first is a peak too: the allocators keep what they have been given.
        """
        peak = torch.cuda.max_memory_allocated() if self._device == "cuda" else 0
        return {
            "device_memory_nbytes": self._used() - self._before,
            "torch_peak_allocated_nbytes": peak,
        }
