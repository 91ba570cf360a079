"""Finds the adapter for a denoiser."""

from __future__ import annotations

from typing import Any

from dipgo.errors import DipgoError
from dipgo.models.controlnet import ControlledFamily
from dipgo.models.dit import DiTFamily
from dipgo.models.family import Family
from dipgo.models.flux import FluxFamily
from dipgo.models.sd3 import SD3Family
from dipgo.models.sdxl import SDXLFamily
from dipgo.models.unet import CLASS, UNetFamily, more_inputs

FAMILIES: tuple[Family, ...] = (
    UNetFamily(),
    SDXLFamily(),
    ControlledFamily(UNetFamily()),
    ControlledFamily(SDXLFamily()),
    DiTFamily(),
    SD3Family(),
    FluxFamily(),
)


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
    if type(denoiser).__name__ != CLASS:
        return "a class that no adapter in dipgo.models is for"
    options = ", ".join(f"{name} {value!r}" for name, value in more_inputs(denoiser).items())
    return f"a configuration that no adapter in dipgo.models is for: {options}"


def supported_denoisers() -> str:
    """What there is an adapter for, as errors list it."""
    return ", ".join(family.denoisers for family in FAMILIES)
