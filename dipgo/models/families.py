"""Finds the adapter for a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dipgo.errors import DipgoError
from dipgo.models.dit import DiTFamily
from dipgo.models.family import Family
from dipgo.models.lcm import LCMFamily, SDXLLCMFamily
from dipgo.models.pixart import PixArtFamily
from dipgo.models.sd3 import SD3Family
from dipgo.models.sdxl import SDXLFamily
from dipgo.models.unconditional import CLASS as UNCONDITIONAL
from dipgo.models.unconditional import UnconditionalFamily, class_inputs
from dipgo.models.unet import CLASS, UNetFamily, more_inputs

FAMILIES: tuple[Family, ...] = (
    UNetFamily(),
    SDXLFamily(),
    DiTFamily(),
    SD3Family(),
    PixArtFamily(),
    UnconditionalFamily(),
    LCMFamily(),
    SDXLLCMFamily(),
)


OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    CLASS: more_inputs,
    UNCONDITIONAL: class_inputs,
}
"""By class of diffusers: what of a configuration decides which adapter is for it, if any is."""


def find_family(denoiser: Any) -> Family:
    """The adapter for a denoiser. Raises DipgoError where there is none."""
    for family in FAMILIES:
        if family.fits(denoiser):
            return family
    raise DipgoError(
        f"denoiser {type(denoiser).__name__}",
        found=_problem(denoiser),
        expected=supported_denoisers(),
        remedy="use one of these, or add an adapter",
    )


def _problem(denoiser: Any) -> str:
    found = OPTIONS.get(type(denoiser).__name__)
    if found is None:
        return "a class that no adapter in dipgo.models is for"
    options = ", ".join(f"{name} {value!r}" for name, value in found(denoiser).items())
    return f"a configuration that no adapter in dipgo.models is for: {options}"


def supported_denoisers() -> str:
    """What there is an adapter for, as errors list it."""
    return ", ".join(family.denoisers for family in FAMILIES)
