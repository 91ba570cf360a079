"""Finds the adapter for a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.models.families.controlnet import ControlledFamily
from dipgo.models.families.dit import DiTFamily
from dipgo.models.families.flux import FluxFamily, flux_encoding
from dipgo.models.families.lcm import LCMFamily, SDXLLCMFamily
from dipgo.models.families.pixart import PixArtFamily, pixart_encoding
from dipgo.models.families.sd3 import SD3Family, sd3_encoding
from dipgo.models.families.sdxl import SDXLFamily, sdxl_encoding
from dipgo.models.families.stable_diffusion import (
    CLASS,
    UNetFamily,
    more_inputs,
    stable_diffusion_encoding,
)
from dipgo.models.families.svd import SVDFamily
from dipgo.models.families.unconditional import CLASS as UNCONDITIONAL
from dipgo.models.families.unconditional import UnconditionalFamily, class_inputs
from dipgo.models.family import Family
from dipgo.models.text_encoding import TextEncoding

_MEMBERS = ("denoisers", "default_blocks", "fits", "latent_shape", "conditioning", "predict")

FAMILIES: tuple[Family, ...] = (
    UNetFamily(),
    SDXLFamily(),
    ControlledFamily(UNetFamily()),
    ControlledFamily(SDXLFamily()),
    DiTFamily(),
    SD3Family(),
    FluxFamily(),
    SVDFamily(),
    PixArtFamily(),
    UnconditionalFamily(),
    LCMFamily(),
    SDXLLCMFamily(),
)

REGISTERED: list[Family] = []
"""Those that a program has brought, the last first: they come before FAMILIES."""


def register_family(family: Family) -> None:
    """Makes a family known to all that loads models, before those that there are.

    What it must have is in `dipgo.models.family.Family`; docs/families.md has an example. Raises
    DipgoError where something of it is missing.
    """
    if isinstance(family, type):
        raise _no_family(family, "a class")
    missing = [name for name in _MEMBERS if not hasattr(family, name)]
    if missing:
        raise _no_family(type(family), f"an object without {', '.join(missing)}")
    if family not in REGISTERED:
        REGISTERED.insert(0, family)


def _no_family(kind: type, found: str) -> DipgoError:
    return DipgoError(
        f"family {kind.__name__}",
        found=found,
        expected=f"an object with {', '.join(_MEMBERS)}",
        remedy="see docs/families.md",
    )


OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    CLASS: more_inputs,
    UNCONDITIONAL: class_inputs,
}
"""By class of diffusers: what of a configuration decides which adapter is for it, if any is."""


def find_family(denoiser: Any) -> Family:
    """The adapter for a denoiser. Raises DipgoError where there is none."""
    for family in (*REGISTERED, *FAMILIES):
        if family.fits(denoiser):
            return family
    raise DipgoError(
        f"denoiser {type(denoiser).__name__}",
        found=_problem(denoiser),
        expected=supported_denoisers(),
        remedy="use one of these, or bring an adapter of your own: docs/families.md",
    )


def _problem(denoiser: Any) -> str:
    found = OPTIONS.get(type(denoiser).__name__)
    if found is None:
        return "a class that no adapter in dipgo.models is for"
    options = ", ".join(f"{name} {value!r}" for name, value in found(denoiser).items())
    return f"a configuration that no adapter in dipgo.models is for: {options}"


def supported_denoisers() -> str:
    """What there is an adapter for, as errors list it."""
    return ", ".join(family.denoisers for family in (*REGISTERED, *FAMILIES))


PIPELINES: dict[str, Callable[[Any, int], TextEncoding]] = {
    "StableDiffusionPipeline": stable_diffusion_encoding,
    "StableDiffusionInpaintPipeline": stable_diffusion_encoding,
    "StableDiffusionControlNetPipeline": stable_diffusion_encoding,
    "LatentConsistencyModelPipeline": stable_diffusion_encoding,
    "StableDiffusionXLPipeline": sdxl_encoding,
    "StableDiffusionXLInpaintPipeline": sdxl_encoding,
    "StableDiffusionXLControlNetPipeline": sdxl_encoding,
    "StableDiffusion3Pipeline": sd3_encoding,
    "PixArtAlphaPipeline": pixart_encoding,
    "PixArtSigmaPipeline": pixart_encoding,
    "FluxPipeline": flux_encoding,
}
"""By class, or that of a base class: how a pipeline encodes its prompts."""


def find_text_encoding(pipeline: Any, tokens: int) -> TextEncoding | None:
    """How the pipeline makes conditioning of texts; None where it has no texts, or is not known.

    `tokens` is the length of the hidden states, f32[rows, tokens, width].
    """
    names = [one.__name__ for one in type(pipeline).__mro__]
    build = next((PIPELINES[name] for name in names if name in PIPELINES), None)
    has_encoder = any(getattr(pipeline, f"text_encoder{one}", None) for one in ("", "_2"))
    has_tokenizer = any(getattr(pipeline, f"tokenizer{one}", None) for one in ("", "_2"))
    if build is None or not has_encoder or not has_tokenizer:
        return None
    return build(pipeline, tokens)
