"""Builds one engine in its own process: `python -m dipgo.engines.tensorrt.build_worker`.

The request comes as JSON on standard input. A process for each engine gives its memory back when it
ends, can run alongside others, and takes nothing else with it if it dies; Polygraphy also decides
once in a process which of the two libraries it works with.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from dipgo.engines.tensorrt.worker import end_with_parent
from dipgo.ir.manifest.engines import RangeRecord

RTX = "tensorrt-rtx"

RECIPE = 1
"""The version of what this module builds, raised so that older engines in caches are not used."""


class BuildRequest(msgspec.Struct, frozen=True):
    """A request to build `graph`, with its weights next to it, into the file `engine`.

    `compute_capabilities` are those that TensorRT for RTX builds for; none means this machine's
    GPU.
    """

    target: str
    graph: str
    engine: str
    profile: dict[str, RangeRecord]
    compute_capabilities: list[str]
    timing_cache: str | None
    refittable: bool = False


def main() -> int:
    """Builds what standard input asks for.

    Returns:
        The exit code: 1 if the library cannot build it; its own words are on standard error.
    """
    end_with_parent()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=BuildRequest)
    if request.target == RTX:
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = {"": G_LOGGER.ERROR}
    try:
        Path(request.engine).write_bytes(_build(request))
    except PolygraphyException:
        return 1
    return 0


def _build(request: BuildRequest) -> Any:
    """Returns the serialised engine. Precision is in the graph, so no flag mentions it."""
    from polygraphy.backend.trt import (
        EngineBytesFromNetwork,
        NetworkFromOnnxPath,
        PostprocessConfig,
        Profile,
        SetDecomposableAttentions,
    )

    profile = Profile()
    for tensor, bounds in request.profile.items():
        profile.add(tensor, tuple(bounds.min), tuple(bounds.opt), tuple(bounds.max))
    settings: dict[str, Any] = {
        "profiles": [profile] if request.profile else None,
        "refittable": request.refittable,
    }
    if request.timing_cache and Path(request.timing_cache).exists():
        settings["load_timing_cache"] = request.timing_cache
    # Attention of a head size without a fused kernel is taken apart instead of refused.
    network = SetDecomposableAttentions(NetworkFromOnnxPath(request.graph, strongly_typed=True))
    config = PostprocessConfig(_config(request, settings), _without_tf32)
    return EngineBytesFromNetwork(network, config, save_timing_cache=request.timing_cache)()


def _without_tf32(builder: Any, network: Any, config: Any) -> None:
    """Keeps the graph's fp32 in fp32: by default the library rounds factors to TF32."""
    from polygraphy.mod.trt_importer import lazy_import_trt

    trt = lazy_import_trt()
    config.clear_flag(trt.BuilderFlag.TF32)


def _config(request: BuildRequest, settings: dict[str, Any]) -> Any:
    if request.target != RTX:
        from polygraphy.backend.trt import CreateConfig

        return CreateConfig(**settings)
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    if not request.compute_capabilities:
        return CreateConfigRTX(use_gpu=True, **settings)
    pairs = [tuple(map(int, capability.split("."))) for capability in request.compute_capabilities]
    return CreateConfigRTX(compute_capabilities=pairs, **settings)


if __name__ == "__main__":
    sys.exit(main())
