"""What an export was made for, read off its manifest: to compile the same model for it again."""

from __future__ import annotations

from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.compiler.trace.precision import Precision, kept_modules
from dipgo.ir.manifest.records import Manifest
from dipgo.ir.types import TensorType
from dipgo.models.family import Geometry
from dipgo.models.source import Source

PACKED_AXES = 3
"""Latents f32[B, L, C] are packed."""

PACKED_PIXELS = 2
"""Of a side of what one packed latent holds."""


def check_same_model(manifest: Manifest, source: Source, where: str) -> None:
    """Raises DipgoError, where `where` begins, for another architecture than was exported."""
    found = (source.model_class, source.config_sha256)
    expected = (manifest.model.class_name, manifest.model.config_sha256)
    if found != expected:
        raise DipgoError(
            where,
            found=f"{found[0]} of configuration {found[1][:12]}… in {source.name}",
            expected=f"{expected[0]} of configuration {expected[1][:12]}…, as was exported",
            remedy="name the model that the export was made of",
        )


def scheduler_of(manifest: Manifest, source: Source) -> Any:
    """That of the export, in all that its configuration tells: null may stand for infinity."""
    chosen = make_scheduler(source.scheduler, manifest.sampler.scheduler_class)
    told = {name: value for name, value in manifest.sampler.config.items() if value is not None}
    return type(chosen).from_config(chosen.config, **told)


def geometry_of(manifest: Manifest, source: Source, where: str) -> Geometry:
    """Raises DipgoError, where `where` begins, if the manifest does not tell height and width."""
    height, width = _size(manifest, source, where)
    return source.geometry(manifest.batch, height, width, manifest.guidance)


def precision_of(manifest: Manifest) -> Precision:
    """What was asked for."""
    kept = kept_modules(manifest.kept_fp32, manifest.parts)
    return Precision(manifest.precision, tuple(kept))


def _size(manifest: Manifest, source: Source, where: str) -> tuple[int, int]:
    """Height and width in pixels; 0 and 0, the model's own, where they are that."""
    latents = next(one for one in manifest.inputs if one.name == "latents")
    shape = TensorType.parse(latents.type).shape
    scale = source.pixels_per_latent
    if len(shape) > PACKED_AXES:
        return shape[-2] * scale, shape[-1] * scale
    own = source.geometry(manifest.batch)
    if source.at(own).latent_shape == shape:
        return 0, 0
    if manifest.pipeline is not None and manifest.pipeline.packed is not None:
        rows, columns = manifest.pipeline.packed
        return rows * PACKED_PIXELS * scale, columns * PACKED_PIXELS * scale
    raise DipgoError(
        where,
        found=f"packed latents {latents.type}, which do not tell height and width",
        expected="those of the model's own size, or an export of a whole pipeline",
        remedy=f"export with {setting('subnet')} dense and the sizes, and name that export",
    )
