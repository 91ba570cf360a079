"""The dense twin of an export: the same model, sampler and sizes, every gate on, one engine."""

from __future__ import annotations

from pathlib import Path

from dipgo.errors import DipgoError
from dipgo.export.api import Progress, export
from dipgo.graph import TensorType
from dipgo.manifest import Manifest, read_manifest
from dipgo.models.source import load_source


def export_dense_twin(export_dir: Path, model: str | None, out: Path, progress: Progress) -> Path:
    """Exports the twin of `export_dir` to `out`; `model` may be left out for an `arch:` export.

    Raises DipgoError, also where `model` is not the model that was exported.
    """
    manifest = read_manifest(export_dir)
    model = model or manifest.model.source
    _check_model(manifest, model)
    latents = next(one for one in manifest.inputs if one.name == "latents")
    *_, height, width = TensorType.parse(latents.type).shape
    scale = load_source(model).pixels_per_latent
    return export(
        model,
        "dense",
        out,
        steps=manifest.program.num_inference_steps,
        scheduler=manifest.sampler.scheduler_class,
        batch=manifest.batch,
        height=height * scale,
        width=width * scale,
        guidance=manifest.guidance,
        progress=progress,
    )


def _check_model(manifest: Manifest, model: str) -> None:
    if model == manifest.model.source and not model.startswith("arch:"):
        raise DipgoError(
            "--against dense",
            found=f"an export of the pipeline {model}, without its path",
            expected="--model M",
            remedy="say where the pipeline is",
        )
