"""Traces a user's model as the sampler will call it: guided, at a fixed size."""

from __future__ import annotations

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.block_patterns import check_patterns
from dipgo.ir.graph import BlockGraph, Dependence
from dipgo.models.family import Geometry
from dipgo.models.gap_functions import GapShape
from dipgo.models.guided import example_inputs, guided_denoiser
from dipgo.models.model import Source


def trace_source(
    source: Source,
    geometry: Geometry,
    blocks: tuple[str, ...],
    precision: Precision = FP32,
    gap: GapShape | None = None,
) -> Traced:
    """Traces the denoiser on the device that holds its weights.

    Args:
        source: The model.
        geometry: The batch and the size of the pictures.
        blocks: Paths of the denoiser's modules.
        precision: The precision to apply to the traced graph.
        gap: If not None, the gap rule's function, which is traced as well.

    Raises:
        DipgoError: A block cannot be gated, a pattern of `precision` matches no module, or the
            denoiser's prediction is not one of the latents.
    """
    check_patterns(source.denoiser, precision.keep_fp32, setting("keep_fp32"))
    geometry = source.at(geometry).geometry
    example, roles = example_inputs(source.family, source.denoiser, geometry)
    guided = guided_denoiser(source.family, source.denoiser, geometry, gap)
    extra = gap.example_inputs(example["latents"]) if gap else {}
    traced = trace(
        guided.eval(),
        {**example, **extra},
        {**roles, **dict.fromkeys(extra, Dependence.STATE)},
        blocks,
        model_class=source.model_class,
        config_sha256=source.config_sha256,
        precision=precision,
        past=tuple(extra),
    )
    _check_prediction(traced.graph, tuple(example["latents"].shape))
    return traced


def _check_prediction(graph: BlockGraph, latents: tuple[int, ...]) -> None:
    """Checks that the sampler can step from the latents by the prediction.

    Raises:
        DipgoError: It has another shape than the latents.
    """
    prediction = graph.types[graph.output].shape
    if latents != prediction:
        raise DipgoError(
            f"denoiser {graph.model_class}",
            found=f"a prediction of shape {list(prediction)} for latents of {list(latents)}",
            expected="a prediction for each of the latents' numbers",
            remedy="use a denoiser that takes nothing but the state in its channels, and predicts "
            "nothing else; or bring an adapter: docs/internals/add-a-family.md",
        )
