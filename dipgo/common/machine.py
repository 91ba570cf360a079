"""Describes the machine and the package versions that a measurement was made with."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""Threads that can be asked for: more gain nothing, and a machine may not be able to start them."""

PACKAGES = (
    "dipgo",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "numpy",
    "torch",
    "diffusers",
    "transformers",
    "torchmetrics",
)


def describe_machine() -> dict[str, str]:
    """Returns the processor, its cores, the versions of installed packages, and the date (UTC)."""
    versions = {name: installed for name in PACKAGES if (installed := _version(name))}
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def physical_memory() -> int | None:
    """Returns the bytes of the machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
