"""Finds the GPU that engines are built for or run on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dipgo.common.errors import DipgoError, setting
from dipgo.engines.tensorrt.cuda import Driver

RTX = "tensorrt-rtx"


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU's name and compute capabilities; without a GPU the name is None."""

    name: str | None
    compute_capabilities: tuple[str, ...]


def gpu_to_build_for(target: str, compute_capabilities: tuple[str, ...]) -> Gpu:
    """Returns the compute capabilities asked for, or this machine's GPU.

    Raises:
        DipgoError: The machine has no GPU, or the library does not build for one of the
            capabilities.
    """
    if not compute_capabilities:
        return gpu_at_hand(f"target {target}", target)
    if target != RTX:
        raise DipgoError(
            setting("compute_capabilities"),
            found=f"{' '.join(compute_capabilities)} for the target {target}",
            expected="none: TensorRT builds for the GPU of this machine",
            remedy=f"build on such a GPU, or build for {RTX}",
        )
    known = _known_capabilities()
    for capability in compute_capabilities:
        if capability not in known:
            raise DipgoError(
                f"{setting('compute_capabilities')} {capability}",
                found="one that TensorRT for RTX does not build for",
                expected=", ".join(known),
                remedy="name one of these, or use the target tensorrt on that GPU",
            )
    return Gpu(None, compute_capabilities)


def gpu_at_hand(where: str, target: str) -> Gpu:
    """Returns the first GPU of this machine.

    Raises:
        DipgoError: There is none.
    """
    remedy = "use a machine with an NVIDIA GPU"
    if target == RTX:
        remedy += f", or say for which to build: {setting('compute_capabilities')} 8.9"
    device = Driver.open(where, remedy).device()
    return Gpu(device.name, (device.compute_capability,))


def _known_capabilities() -> list[str]:
    """Returns what this version of TensorRT for RTX lists: SM86 is 8.6, SM120 is 12.0."""
    import tensorrt_rtx

    names = " ".join(tensorrt_rtx.ComputeCapability.__members__)
    return [f"{major}.{minor}" for major, minor in re.findall(r"SM(\d+)(\d)\b", names)]
