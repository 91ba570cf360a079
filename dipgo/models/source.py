"""Resolves the model that a user names to a denoiser, its scheduler and other parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from dipgo.common.arguments import check_path
from dipgo.common.errors import DipgoError, close_to, described, setting
from dipgo.common.kinds import PIPELINE, check_kind
from dipgo.ir.fitted import LoraRecord
from dipgo.models.families.controlnet import attach_controlnet
from dipgo.models.finite_weights import check_weights
from dipgo.models.float_modules import with_float_modules
from dipgo.models.inventory import DENOISERS, check_pipeline, find_vae
from dipgo.models.lora import fuse_loras, with_own_parts
from dipgo.models.model import Source
from dipgo.models.options import Lora, check_loras
from dipgo.models.pipeline_files import (
    INDEX,
    absent_parts,
    check_pipeline_files,
    files_of,
    find_variant,
)
from dipgo.models.registry import find_family, find_presets, supported_denoisers
from dipgo.models.vae import pixels_of_latent
from dipgo.models.wrappers import pipeline_modules, unwrapped


class Hash(Protocol):
    """A hash object of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Adds bytes to the hash."""


def add_weights(digest: Hash, module: nn.Module) -> None:
    """Adds name, type, shape and bytes of every parameter and buffer, in the module's order."""
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


HUB_TIMEOUT_S = 10.0


def load_source(model: Any, loras: Sequence[Lora] = ()) -> Source:
    """Loads a model; its modules are put into evaluation mode and frozen.

    `dipgo.models.as_found.left_as_found` puts a caller's pipeline back.

    Args:
        model: A pipeline, its path, a Hub id, `arch:NAME` or a Source.
        loras: Fused into the weights; those of a pipeline object stay as they are.

    Returns:
        The model; its modules are of float32, whatever the type of the pipeline's.

    Raises:
        DipgoError: The model cannot be loaded, no family serves it, a LoRA does not fit it, or a
            weight of the denoiser is no number.
    """
    source = _load(model, check_loras(loras))
    check_weights(source.denoiser, f"model {source.name}")
    return source


def _load(model: Any, loras: Sequence[Lora]) -> Source:
    if loras and (isinstance(model, Source) or str(model).startswith("arch:")):
        raise _no_loras(model.name if isinstance(model, Source) else str(model))
    if isinstance(model, Source):
        return model
    is_loaded = not isinstance(model, str | Path)
    if is_loaded:
        _check_has_denoiser(model)
    else:
        check_kind(check_path("model", model), PIPELINE)
    if not is_loaded and str(model).startswith("arch:"):
        return _from_architecture(str(model))
    pipeline = model if is_loaded else _load_pipeline(str(model))
    name = type(model).__name__ if is_loaded else Path(model).name
    unwrapped(pipeline, name)
    if loras and is_loaded:
        pipeline = with_own_parts(pipeline)
    pipeline = with_float_modules(pipeline)
    return _from_pipeline(pipeline, name, fuse_loras(pipeline, loras))


def _no_loras(name: str) -> DipgoError:
    return DipgoError(
        setting("loras"),
        found=f"{name}, which is no pipeline",
        expected="a pipeline, into whose weights a LoRA can be fused",
        remedy=f"leave {setting('loras')} out, or give a pipeline's directory or Hub id",
    )


def _from_architecture(name: str) -> Source:
    presets = find_presets()
    preset = presets.get(name.removeprefix("arch:"))
    if preset is None:
        raise DipgoError(
            f"model {name}",
            found="an architecture that is not known",
            expected=" ".join(f"arch:{known}" for known in presets),
            remedy=close_to(
                name,
                [f"arch:{known}" for known in presets],
                "choose one of these, or a pipeline's directory or Hub id",
            ),
        )
    denoiser = preset.build_denoiser()
    return Source(
        name=name,
        denoiser=denoiser.eval().requires_grad_(False),
        family=find_family(denoiser),
        scheduler=preset.build_scheduler(),
        pixels_per_latent=preset.pixels_per_latent,
        tokens=preset.tokens,
    )


def _load_pipeline(name: str) -> Any:
    from diffusers import DiffusionPipeline

    options: dict[str, Any] = {}
    path, hub_problem = Path(name), ""
    if path.exists():
        if not (path / INDEX).exists():
            raise _no_pipeline(name, f"no {INDEX}")
        check_pipeline_files(path)
        options, files = dict(absent_parts(path)), files_of(path)
    else:
        hub_problem, files = _ask_hub(name)
    variant = find_variant(name, files)
    try:
        return DiffusionPipeline.from_pretrained(
            name, local_files_only=bool(hub_problem), variant=variant, **options
        )
    except Exception as error:  # whatever the many loaders meet in damaged files
        raise _no_pipeline(name, hub_problem or _first_line(error)) from error


def _ask_hub(name: str) -> tuple[str, list[str]]:
    """Returns why the Hub cannot serve the model, "" where it can, and the files that there are.

    It asks the Hub once and with a short timeout, where diffusers would retry; the files are then
    those that were fetched before.

    Raises:
        DipgoError: The name cannot be a Hub id.
    """
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        siblings = model_info(name, timeout=HUB_TIMEOUT_S).siblings or ()
    except HFValidationError:
        raise _no_pipeline(name, "no directory of that name, nor can it be a Hub id") from None
    except Exception as error:  # of requests or httpx, whichever the Hub's client uses
        problem = f"no directory of that name, nor a model on the Hub ({type(error).__name__})"
        try:
            return problem, files_of(Path(snapshot_download(name, local_files_only=True)))
        except Exception:  # as above, or nothing was fetched: diffusers says so
            return problem, []
    return "", [sibling.rfilename for sibling in siblings]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def _no_pipeline(name: str, problem: str) -> DipgoError:
    return DipgoError(
        f"model {name}",
        found=problem,
        expected="a directory that diffusers' save_pretrained has written, a Hub id that can be "
        "reached, or arch:NAME",
        remedy="check the name and the network, or download the pipeline and give its path",
    )


def _from_pipeline(pipeline: Any, name: str, loras: tuple[LoraRecord, ...] = ()) -> Source:
    denoiser = _check_has_denoiser(pipeline, name)
    controlnet = getattr(pipeline, "controlnet", None)
    if controlnet is not None:
        denoiser = attach_controlnet(denoiser, controlnet)
    family = find_family(denoiser).for_pipeline(pipeline)
    check_pipeline(pipeline, name, family, denoiser)
    for module in (denoiser, *pipeline_modules(pipeline).values()):
        module.eval().requires_grad_(False)
    return Source(
        name=name,
        denoiser=denoiser,
        family=family,
        scheduler=pipeline.scheduler,
        pixels_per_latent=_pixels_per_latent(pipeline),
        tokens=family.tokens(pipeline),
        pipeline=pipeline,
        loras=loras,
    )


def _check_has_denoiser(pipeline: Any, name: str = "") -> Any:
    """Returns the denoiser of a pipeline.

    Raises:
        DipgoError: It has none, or is no pipeline at all.
    """
    found = (getattr(pipeline, part, None) for part in DENOISERS)
    denoiser = next((part for part in found if isinstance(part, nn.Module)), None)
    if denoiser is None:
        raise DipgoError(
            f"model {name}" if name else setting("model"),
            found=f"{described(pipeline)} without unet or transformer",
            expected="a diffusers pipeline with a denoiser, its directory, a Hub id, or arch:NAME",
            remedy=f"use a pipeline around one of {supported_denoisers()}",
        )
    return denoiser


def _pixels_per_latent(pipeline: Any) -> int:
    """Returns the pixels a latent; 1 without a VAE, since the picture itself is denoised then."""
    if hasattr(pipeline, "vae_scale_factor"):
        return int(pipeline.vae_scale_factor)
    vae = find_vae(pipeline)
    if hasattr(pipeline, "vae"):
        return 8
    return 1 if vae is None else pixels_of_latent(vae)
