"""Traces what the user calls a model, as the sampler will call it: guided, at a given size."""

from __future__ import annotations

from dipgo.common.errors import setting
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.block_patterns import check_patterns
from dipgo.ir.graph import Dependence
from dipgo.models.family import Geometry
from dipgo.models.gap_filter import FilterShape, filter_inputs
from dipgo.models.guided import example_inputs, guided_denoiser
from dipgo.models.source import Source


def trace_source(
    source: Source,
    geometry: Geometry,
    blocks: tuple[str, ...],
    precision: Precision = FP32,
    reuse: FilterShape | None = None,
) -> Traced:
    """The denoiser with `blocks`, paths of its modules, on the device where its weights are.

    With `reuse`, also with what makes a prediction of earlier ones.

    Raises DipgoError for a block that cannot be gated, and a pattern of `precision` without match.
    """
    check_patterns(source.denoiser, precision.keep_fp32, setting("keep_fp32"))
    example, roles = example_inputs(
        source.family, source.denoiser, geometry, source.pixels_per_latent
    )
    guided = guided_denoiser(
        source.family, source.denoiser, geometry, source.pixels_per_latent, reuse
    )
    extra = filter_inputs(example["latents"], reuse) if reuse else {}
    return trace(
        guided.eval(),
        {**example, **extra},
        {**roles, **dict.fromkeys(extra, Dependence.STATE)},
        blocks,
        model_class=source.model_class,
        config_sha256=source.config_sha256,
        precision=precision,
        reuse=tuple(extra),
    )
