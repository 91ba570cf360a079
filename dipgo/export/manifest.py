"""What the manifest says of the pipeline: what it does besides running its models."""

from __future__ import annotations

from dipgo.export.parts import packed_grid
from dipgo.export.sizes import Variant
from dipgo.ir.manifest.records import ClassesRecord, PipelineRecord
from dipgo.models.prompts import CLASS_LABELS, class_count, class_names, fixed_conditioning
from dipgo.models.registry import find_text_encoding
from dipgo.models.source import Source
from dipgo.models.text_encoding import default_of_call


def pipeline_record(source: Source, variant: Variant) -> PipelineRecord | None:
    """None of an architecture with random weights, which has no pipeline."""
    if source.pipeline is None:
        return None
    encoding = find_text_encoding(source.pipeline, variant.geometry.tokens)
    plan = variant.compiled.plan
    state = next(value for value in plan.inputs if value.name == plan.state)
    scale = default_of_call(source.pipeline, "guidance_scale")
    if scale is None:  # a video's grows from frame to frame up to this
        scale = default_of_call(source.pipeline, "max_guidance_scale")
    return PipelineRecord(
        class_name=type(source.pipeline).__name__,
        guidance_scale=1.0 if scale is None else float(scale),
        zeros_without_negative=encoding is not None and encoding.zeros_without_negative,
        fixed=fixed_conditioning(source, variant.geometry),
        classes=_classes(source, variant),
        packed=packed_grid(state.type.shape, variant.geometry),
    )


def _classes(source: Source, variant: Variant) -> ClassesRecord | None:
    names = source.family.conditioning(source.denoiser, variant.geometry)
    if CLASS_LABELS not in names:
        return None
    return ClassesRecord(class_count(source), dict(sorted(class_names(source).items())))
