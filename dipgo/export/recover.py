"""Reads off a manifest the options of an export, to compile the same model for it again."""

from __future__ import annotations

from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.compiler.trace.precision import Precision, kept_modules
from dipgo.ir.manifest.records import Manifest
from dipgo.ir.types import TensorType
from dipgo.models.family import Geometry
from dipgo.models.model import Source

PACKED_AXES = 3
"""The rank of packed latents, f32[B, L, C]."""

PACKED_PIXELS = 2
"""Latents per side of the square that is packed into one."""


def check_same_model(manifest: Manifest, source: Source, where: str) -> None:
    """Checks that a model has the architecture that was exported.

    Raises:
        DipgoError: The architecture is another; the error begins with `where`.
    """
    actual = (source.model_class, source.config_sha256)
    expected = (manifest.model.class_name, manifest.model.config_sha256)
    if actual != expected:
        raise DipgoError(
            where,
            found=f"{actual[0]} of configuration {actual[1][:12]}… in {source.name}",
            expected=f"{expected[0]} of configuration {expected[1][:12]}…, as was exported",
            remedy="name the model that the export was made of",
        )


def scheduler_of(manifest: Manifest, source: Source) -> Any:
    """Returns the export's scheduler with its whole configuration; null may stand for infinity."""
    chosen = make_scheduler(source.scheduler, manifest.sampler.scheduler_class)
    known = {name: value for name, value in manifest.sampler.config.items() if value is not None}
    return type(chosen).from_config(chosen.config, **known)


def geometry_of(manifest: Manifest, source: Source, where: str) -> Geometry:
    """Returns the geometry of an export.

    Raises:
        DipgoError: The manifest does not determine height and width; the error begins with `where`.
    """
    height, width = _size(manifest, source, where)
    return source.geometry(manifest.batch, height, width, manifest.guidance)


def precision_of(manifest: Manifest) -> Precision:
    """Returns the precision that the export was asked to have."""
    kept = kept_modules(manifest.kept_fp32, manifest.parts)
    return Precision(manifest.precision, tuple(kept))


def _size(manifest: Manifest, source: Source, where: str) -> tuple[int, int]:
    """Returns height and width in pixels, or 0 and 0 for the model's own."""
    latents = next(record for record in manifest.inputs if record.name == "latents")
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
        found=f"packed latents {latents.type}, which do not determine height and width",
        expected="those of the model's own size, or an export of a whole pipeline",
        remedy=f"export with {setting('subnet')} dense and the sizes, and name that export",
    )
