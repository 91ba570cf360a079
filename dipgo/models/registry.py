"""Registry: the families by name, and lookups across all of them."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from dipgo.common.errors import DipgoError

if TYPE_CHECKING:
    from dipgo.models.family import Family
    from dipgo.models.presets import Preset
    from dipgo.models.text_encoding import TextEncoding

# The class or function that makes each family, imported at the first lookup: a new family needs a
# row here.
FAMILIES = {
    "stable-diffusion": "dipgo.models.families.stable_diffusion:UNetFamily",
    "sdxl": "dipgo.models.families.sdxl:SDXLFamily",
    "controlnet": "dipgo.models.families.controlnet:stable_diffusion_controlnet",
    "sdxl-controlnet": "dipgo.models.families.controlnet:sdxl_controlnet",
    "dit": "dipgo.models.families.dit:DiTFamily",
    "sd3": "dipgo.models.families.sd3:SD3Family",
    "flux": "dipgo.models.families.flux:FluxFamily",
    "svd": "dipgo.models.families.svd:SVDFamily",
    "pixart": "dipgo.models.families.pixart:PixArtFamily",
    "unconditional": "dipgo.models.families.unconditional:UnconditionalFamily",
    "lcm": "dipgo.models.families.lcm:LCMFamily",
    "sdxl-lcm": "dipgo.models.families.lcm:SDXLLCMFamily",
}

REGISTERED: list[Family] = []
"""Families registered at run time, most recent first; searched before FAMILIES."""


@cache
def built_in_families() -> tuple[Family, ...]:
    """Returns the families that FAMILIES names, in its order."""
    return tuple(resolve_name(path)() for path in FAMILIES.values())


def all_families() -> tuple[Family, ...]:
    """Returns all families in the order of lookup: registered ones first."""
    return (*REGISTERED, *built_in_families())


def register_family(family: Any) -> None:
    """Registers a family for all code that loads models; it is searched before all others.

    Args:
        family: A `dipgo.models.Family`, or any object with its abstract members; optional members
            may be missing. Methods may take `scale`, pixels a latent, as they did in 0.1.

    Raises:
        DipgoError: A required member is missing, or `family` is a class instead of an object.
    """
    from dipgo.models.adapted import REQUIRED, completed

    if isinstance(family, type):
        raise _no_family(family, "a class", REQUIRED)
    missing = [name for name in REQUIRED if not hasattr(family, name)]
    if missing:
        raise _no_family(type(family), f"an object without {', '.join(missing)}", REQUIRED)
    whole = completed(family)
    if whole not in REGISTERED:
        REGISTERED.insert(0, whole)


def _no_family(cls: type, problem: str, required: tuple[str, ...]) -> DipgoError:
    return DipgoError(
        f"family {cls.__name__}",
        found=problem,
        expected=f"an object with {', '.join(required)}",
        remedy="see docs/internals/add-a-family.md",
    )


def find_family(denoiser: Any) -> Family:
    """Returns the adapter for a denoiser.

    Raises:
        DipgoError: No family serves it.
    """
    for family in all_families():
        if family.fits(denoiser):
            return family
    raise DipgoError(
        f"denoiser {type(denoiser).__name__}",
        found=_problem(denoiser),
        expected=supported_denoisers(),
        remedy="use one of these, or bring your own adapter: docs/internals/add-a-family.md",
    )


def _problem(denoiser: Any) -> str:
    decisive = (family.unserved_options(denoiser) for family in all_families())
    options = next((values for values in decisive if values), {})
    if not options:
        return "a class that no adapter in dipgo.models is for"
    words = ", ".join(f"{name} {value!r}" for name, value in options.items())
    return f"a configuration that no adapter in dipgo.models is for: {words}"


def supported_denoisers() -> str:
    """Returns the denoisers that have an adapter, as errors list them."""
    return ", ".join(family.denoisers for family in all_families())


def supported_pipelines() -> str:
    """Returns the pipelines whose text encoders some family knows, as errors list them."""
    names = (
        name for family in all_families() if _encodes_texts(family) for name in family.pipelines
    )
    return ", ".join(dict.fromkeys(names))


def _encodes_texts(family: Family) -> bool:
    from dipgo.models.family import Family as Base

    return getattr(family.text_encoding, "__func__", None) is not Base.text_encoding


def find_presets() -> dict[str, Preset]:
    """Returns the presets of all families by their names after `arch:`."""
    presets: dict[str, Preset] = {}
    for family in all_families():
        for name, preset in family.presets.items():
            presets.setdefault(name, preset)
    return presets


def find_text_encoding(
    pipeline: Any, tokens: int, family: Family | None = None
) -> TextEncoding | None:
    """Returns how a pipeline makes conditioning of texts; None if it takes none, or is not known.

    Args:
        pipeline: The loaded pipeline of diffusers, or None.
        tokens: Length of the hidden states f32[rows, tokens, width].
        family: The adapter for its denoiser, which is searched before all others.
    """
    names = {cls.__name__ for cls in type(pipeline).__mro__}
    asked = all_families() if family is None else (family, *all_families())
    serving = (candidate for candidate in asked if not names.isdisjoint(candidate.pipelines))
    first = next(serving, None)
    encoding = None if first is None else first.text_encoding(pipeline, tokens)
    return None if encoding is None else encoding.widened_by(pipeline)
