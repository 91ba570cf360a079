"""The dense twin of an export: the same model, sampler and sizes with every gate on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.request import Progress
from dipgo.compiler.settings import DENSE
from dipgo.engines.targets import DEFAULT_TARGET
from dipgo.export.api import write_export
from dipgo.export.recover import check_same_model, geometry_of, precision_of, scheduler_of
from dipgo.export.settings import ExportSettings
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.manifest.records import Manifest
from dipgo.models.model import Source
from dipgo.models.source import load_source

WHERE = f"{setting('against')} dense"


def export_dense_twin(
    export_dir: Path,
    model: str | None,
    out: Path,
    progress: Progress,
    target: str = DEFAULT_TARGET,
    size: str = "",
) -> Path:
    """Exports the dense twin of an export and returns its path.

    The twin has the precision, sampler and steps of the export.

    Args:
        export_dir: The export directory.
        model: The model that was exported; None suffices for an `arch:` export.
        out: The directory to write.
        progress: Called with what is about to happen.
        target: The target of the twin.
        size: The export's further size to take, "" for its first.

    Raises:
        DipgoError: `model` is missing, is not the model that was exported, or has other LoRAs.
    """
    manifest = read_manifest(export_dir, size)
    model = model or manifest.model.source
    _check_is_found(manifest, model)
    source = load_source(model)
    check_same_model(manifest, source, WHERE)
    _check_same_loras(manifest, source)
    source = replace(source, scheduler=scheduler_of(manifest, source))
    geometry = geometry_of(manifest, source, WHERE)
    settings = ExportSettings(
        DENSE,
        steps=manifest.program.num_inference_steps,
        eta=manifest.sampler.eta,
        batch=manifest.batch,
        height=geometry.height,
        width=geometry.width,
        guidance=manifest.guidance,
        strength=manifest.sampler.strength,
        target=target,
        precision=manifest.precision,
        keep_fp32=precision_of(manifest).keep_fp32,
        check_numerics=False,
    )
    return write_export(source, settings, out, progress)


def _check_is_found(manifest: Manifest, model: str) -> None:
    if model == manifest.model.source and not model.startswith("arch:"):
        raise DipgoError(
            WHERE,
            found=f"an export of the pipeline {model}, without its path",
            expected=f"{setting('model')} M",
            remedy="say where the pipeline is",
        )


def _check_same_loras(manifest: Manifest, source: Source) -> None:
    if list(source.loras) != manifest.model.loras:
        names = " ".join(lora.name for lora in manifest.model.loras)
        raise DipgoError(
            WHERE,
            found=f"an export with LoRAs in its weights: {names}",
            expected="one without: their files are not in an export",
            remedy=f"export the twin with the same {setting('loras')}, and give its directory",
        )
