"""The GPU that engines are built for, or are to run on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dipgo.common.errors import DipgoError, setting
from dipgo.engines.tensorrt.cuda import Driver

RTX = "tensorrt-rtx"


@dataclass(frozen=True, slots=True)
class Gpu:
    """`name` is None where there is none, and engines are built for compute capabilities."""

    name: str | None
    compute_capabilities: tuple[str, ...]


def gpu_to_build_for(target: str, compute_capabilities: tuple[str, ...]) -> Gpu:
    """Those asked for, or that of the GPU at hand. Raises DipgoError."""
    if not compute_capabilities:
        return gpu_at_hand(f"target {target}", target)
    if target != RTX:
        raise DipgoError(
            setting("compute_capabilities"),
            found=f"{' '.join(compute_capabilities)} for the target {target}",
            expected="none: TensorRT builds for the GPU at hand",
            remedy=f"build on such a GPU, or build for {RTX}",
        )
    known = _known_capabilities()
    for one in compute_capabilities:
        if one not in known:
            raise DipgoError(
                f"{setting('compute_capabilities')} {one}",
                found="one that TensorRT for RTX does not build for",
                expected=", ".join(known),
                remedy="name one of these, or use the target tensorrt on that GPU",
            )
    return Gpu(None, compute_capabilities)


def gpu_at_hand(where: str, target: str) -> Gpu:
    """The first GPU. Raises DipgoError where there is none."""
    remedy = "use a machine with an NVIDIA GPU"
    if target == RTX:
        remedy += f", or say for which to build: {setting('compute_capabilities')} 8.9"
    device = Driver.open(where, remedy).device()
    return Gpu(device.name, (device.compute_capability,))


def _known_capabilities() -> list[str]:
    """What this version of TensorRT for RTX lists: SM86 stands for 8.6, SM120 for 12.0."""
    import tensorrt_rtx

    names = " ".join(tensorrt_rtx.ComputeCapability.__members__)
    return [f"{major}.{minor}" for major, minor in re.findall(r"SM(\d+)(\d)\b", names)]
