"""Runs once what is about to be exported, to measure the error of narrow types."""

from __future__ import annotations

from collections.abc import Sequence

from dipgo.compiler.compile import Compiled
from dipgo.compiler.request import Prepared, Progress
from dipgo.compiler.trace.precision import FP32
from dipgo.export.parts import VAE_DECODER, Part, make_parts
from dipgo.export.precision.compare import Numerics, check_part, check_segments
from dipgo.export.precision.inputs import trial_inputs


def choose_parts(
    prepared: Prepared, compiled: Compiled, parts: list[Part], progress: Progress
) -> tuple[list[Part], dict[str, Numerics]]:
    """Returns the pipeline's other parts, and the figures of segments and parts in narrow types.

    A part for which the narrow type does not suffice stays in fp32. An fp32 export has no figures.

    Args:
        prepared: The model, schedule and sizes.
        compiled: The plan and the graph it was made from.
        parts: The pipeline's other parts, in narrow types.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The narrow type does not suffice for a segment.
    """
    precision = compiled.traced.precision
    if precision == FP32:
        return parts, {}
    figures, unfit = try_out(prepared, compiled, parts, progress)
    if unfit:
        parts = make_parts(prepared, compiled, lambda name: FP32 if name in unfit else precision)
    return parts, figures


def try_out(
    prepared: Prepared, compiled: Compiled, parts: Sequence[Part], progress: Progress
) -> tuple[dict[str, Numerics], set[str]]:
    """Returns the figures of segments and parts, and the names of parts that need fp32.

    Args:
        prepared: The model, schedule and sizes.
        compiled: The plan and the graph it was made from.
        parts: The pipeline's other parts, in narrow types.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The narrow type does not suffice for a segment.
    """
    precision = compiled.traced.precision
    with progress(f"check {precision.name} against fp32, {len(compiled.plan.steps)} steps"):
        inputs = trial_inputs(prepared, compiled, parts)
        figures, latents = check_segments(compiled.plan, compiled.traced, inputs.run)
    unfit: set[str] = set()
    for part in parts:
        if part.precision == FP32:
            continue
        with progress(f"check the {part.name.replace('_', ' ')} in {precision.name}"):
            arguments = [latents] if part.name == VAE_DECODER else inputs.parts[part.name]
            numerics, suffices = check_part(part, arguments)
        if suffices:
            figures[part.name] = numerics
        else:
            unfit.add(part.name)
    return figures, unfit
