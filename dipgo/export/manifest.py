"""Makes the manifest's record of the pipeline, and warns if the SubNet was fitted for another."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import UNSET

from dipgo.common.warn import warn
from dipgo.export.left_out import left_out
from dipgo.export.sizes import Variant
from dipgo.ir.manifest.records import ClassesRecord, PipelineRecord
from dipgo.ir.misfit import Use, misfits
from dipgo.models.model import Source
from dipgo.models.prompts import CLASS_LABELS, class_names
from dipgo.models.text_encoding import default_scale


def pipeline_record(source: Source, variant: Variant) -> PipelineRecord | None:
    """Returns the record, or None for an architecture with random weights: it has no pipeline."""
    if source.pipeline is None:
        return None
    model = source.at(variant.geometry)
    encoding = model.text_encoding
    fitted, scale = variant.compiled.fitted, default_scale(source.pipeline)
    return PipelineRecord(
        class_name=type(source.pipeline).__name__,
        guidance_scale=scale if fitted is None else fitted.nearest_scale(scale),
        zeros_without_negative=encoding is not None and encoding.zeros_without_negative,
        fixed=model.fixed_conditioning,
        classes=_classes(source, model.conditioning),
        packed=model.sized_family.packed_grid(),
        fixed_unconditional=model.fixed_unconditional or UNSET,
        left_out=left_out(model, variant.parts) or UNSET,
    )


def warn_of_misfits(source: Source, variants: Sequence[Variant]) -> None:
    """Warns of everything in an export that its SubNet was not fitted for, once for all sizes."""
    lines = [
        line
        for variant in variants
        for line in misfits(variant.compiled.fitted, _use(source, variant))
    ]
    for line in dict.fromkeys(lines):
        warn(line)


def _use(source: Source, variant: Variant) -> Use:
    plan = variant.compiled.plan
    state = next(value for value in plan.inputs if value.name == plan.state)
    return Use(
        variant.geometry.guidance,
        state.type.shape[1:],
        variant.compiled.sampler.strength,
        source.loras,
    )


def _classes(source: Source, names: Collection[str]) -> ClassesRecord | None:
    if CLASS_LABELS not in names:
        return None
    count = source.family.class_count(source.denoiser)
    return ClassesRecord(count, dict(sorted(class_names(source).items())))
