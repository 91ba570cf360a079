"""The dense twin of an export: the same model, sampler and sizes, every gate on, one engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dipgo.errors import DipgoError
from dipgo.export.api import export
from dipgo.export.prepare import Progress
from dipgo.graph import TensorType
from dipgo.manifest import Manifest
from dipgo.manifest_file import read_manifest
from dipgo.models.source import Source, load_source
from dipgo.precision import kept_modules
from dipgo.samplers import make_scheduler

PACKED_AXES = 3
"""Latents f32[B, L, C] are packed."""


def export_dense_twin(
    export_dir: Path,
    model: str | None,
    out: Path,
    progress: Progress,
    target: str = "onnxruntime",
    size: str = "",
) -> Path:
    """Exports the twin of `export_dir` to `out`; `model` may be left out for an `arch:` export.

    It has the precision of the export, and is for `target` and `size`.

    Raises DipgoError, also where `model` is not the model that was exported.
    """
    manifest = read_manifest(export_dir, size)
    model = model or manifest.model.source
    _check_is_found(manifest, model)
    source = load_source(model)
    _check_same_model(manifest, source)
    _check_same_loras(manifest, source)
    source = replace(source, scheduler=_scheduler_of(manifest, source))
    height, width = _size(manifest, source)
    return export(
        source,
        "dense",
        out,
        steps=manifest.program.num_inference_steps,
        eta=manifest.sampler.eta,
        batch=manifest.batch,
        height=height,
        width=width,
        guidance=manifest.guidance,
        strength=manifest.sampler.strength,
        target=target,
        precision=manifest.precision,
        keep_fp32=kept_modules(manifest.kept_fp32, manifest.parts),
        check_numerics=False,
        progress=progress,
    )


def _scheduler_of(manifest: Manifest, source: Source) -> Any:
    """That of the export, in all that its configuration tells: null may stand for infinity."""
    chosen = make_scheduler(source.scheduler, manifest.sampler.scheduler_class)
    told = {name: value for name, value in manifest.sampler.config.items() if value is not None}
    return type(chosen).from_config(chosen.config, **told)


def _size(manifest: Manifest, source: Source) -> tuple[int, int]:
    """Height and width in pixels; 0 and 0, the model's own, where the state does not tell them."""
    latents = next(one for one in manifest.inputs if one.name == "latents")
    shape = TensorType.parse(latents.type).shape
    if len(shape) > PACKED_AXES:
        return shape[-2] * source.pixels_per_latent, shape[-1] * source.pixels_per_latent
    geometry = source.geometry(manifest.batch)
    if source.family.latent_shape(source.denoiser, geometry, source.pixels_per_latent) != shape:
        raise DipgoError(
            "--against dense",
            found=f"packed latents {latents.type}, which do not tell height and width",
            expected="those of the model's own size",
            remedy="export with --subnet dense and the sizes, and name that export",
        )
    return 0, 0


def _check_is_found(manifest: Manifest, model: str) -> None:
    if model == manifest.model.source and not model.startswith("arch:"):
        raise DipgoError(
            "--against dense",
            found=f"an export of the pipeline {model}, without its path",
            expected="--model M",
            remedy="say where the pipeline is",
        )


def _check_same_model(manifest: Manifest, source: Source) -> None:
    found = (source.model_class, source.config_sha256)
    expected = (manifest.model.class_name, manifest.model.config_sha256)
    if found != expected:
        raise DipgoError(
            "--against dense",
            found=f"{found[0]} of configuration {found[1][:12]}… in {source.name}",
            expected=f"{expected[0]} of configuration {expected[1][:12]}…, as was exported",
            remedy="name the model that the export was made of",
        )


def _check_same_loras(manifest: Manifest, source: Source) -> None:
    if list(source.loras) != manifest.model.loras:
        names = " ".join(lora.name for lora in manifest.model.loras)
        raise DipgoError(
            "--against dense",
            found=f"an export with LoRAs in its weights: {names}",
            expected="one without: their files are not in an export",
            remedy="export the dense twin with the same --lora, and give its directory",
        )
