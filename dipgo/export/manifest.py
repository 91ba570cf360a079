"""Makes the manifest's record of the pipeline: what it does besides running its models."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import UNSET

from dipgo.export.left_out import left_out
from dipgo.export.sizes import Variant
from dipgo.ir.manifest.records import ClassesRecord, PipelineRecord
from dipgo.models.model import Source
from dipgo.models.prompts import CLASS_LABELS, class_names
from dipgo.models.text_encoding import default_of_call


def pipeline_record(source: Source, variant: Variant) -> PipelineRecord | None:
    """Returns the record, or None for an architecture with random weights: it has no pipeline."""
    if source.pipeline is None:
        return None
    model = source.at(variant.geometry)
    encoding = model.text_encoding
    scale = default_of_call(source.pipeline, "guidance_scale")
    if scale is None:  # for video it grows from frame to frame up to this
        scale = default_of_call(source.pipeline, "max_guidance_scale")
    return PipelineRecord(
        class_name=type(source.pipeline).__name__,
        guidance_scale=1.0 if scale is None else float(scale),
        zeros_without_negative=encoding is not None and encoding.zeros_without_negative,
        fixed=model.fixed_conditioning,
        classes=_classes(source, model.conditioning),
        packed=model.sized_family.packed_grid(),
        fixed_unconditional=model.fixed_unconditional or UNSET,
        left_out=left_out(model, variant.parts) or UNSET,
    )


def _classes(source: Source, names: Collection[str]) -> ClassesRecord | None:
    if CLASS_LABELS not in names:
        return None
    count = source.family.class_count(source.denoiser)
    return ClassesRecord(count, dict(sorted(class_names(source).items())))
