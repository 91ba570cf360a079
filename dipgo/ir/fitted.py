"""Records what a SubNet was fitted for, and the errors that were measured there and elsewhere.

Its gates, and still more its weights, come from trajectories of one model at some guidance scales,
in one size, without a negative prompt. At others they still run, but farther from dense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from dipgo.common.errors import DipgoError

Scales: TypeAlias = tuple[float, float]
"""The lowest and the highest of a range of guidance scales; the same twice for one scale."""

LEAST_SCALE = 1.0
"""The scale at which guidance does nothing; diffusers does not guide below it either."""

MOST_SCALE = float.fromhex("0x1.fffffep+127")
"""The largest number of float32, in which plans have the scale."""

SAME = 1e-6
"""Relative tolerance within which scales are the same: some callers round them to float32."""


class LoraRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A LoRA in the weights: its file's name and hash, and the scale of its weights."""

    name: str
    sha256: str
    scale: float


class MeasuredError(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The mean latent error against dense, on noise to which nothing was fitted.

    `guidance` is the scale, null without guidance; `error` is null if it was not finite. With
    `negative_prompts` each picture had one.
    """

    guidance: float | None
    error: Annotated[float, Meta(ge=0)] | None
    negative_prompts: bool = False


class Fitted(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a SubNet was fitted for.

    `guidance` is the lowest and the highest scale, null without guidance. `latents` is the shape
    of one picture's latents, null if it is not known. `strength` is that of image-to-image, `loras`
    are those in the weights. `errors` were measured with the SubNet, also at other scales, and are
    means over so many `pictures`, 0 if it is not known how many.
    """

    guidance: Scales | None = None
    latents: tuple[Annotated[int, Meta(ge=1)], ...] | None = None
    negative_prompt: str | None = None
    strength: Annotated[float, Meta(gt=0, le=1)] | None = None
    loras: tuple[LoraRecord, ...] = ()
    errors: tuple[MeasuredError, ...] = ()
    pictures: Annotated[int, Meta(ge=0)] = 0

    def nearest_scale(self, scale: float) -> float:
        """Returns the scale nearest to `scale` among those that were fitted for."""
        if self.guidance is None:
            return scale
        lowest, highest = self.guidance
        return min(max(scale, lowest), highest)


def middle(scales: Scales) -> float:
    """Returns the middle of a range of scales."""
    return sum(scales) / 2


def same_scale(one: float, other: float) -> bool:
    """Returns whether two scales are the same but for rounding."""
    return math.isclose(one, other, rel_tol=SAME)


def scales_in_words(scales: Scales) -> str:
    """Returns `5`, or `3 to 9` for a range."""
    lowest, highest = scales
    return f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}"


def check_fitted(fitted: Fitted | None) -> None:
    """Checks that the scales, if there are any, are a range.

    Raises:
        DipgoError: They are not.
    """
    if fitted is None or fitted.guidance is None:
        return
    lowest, highest = fitted.guidance
    if not LEAST_SCALE <= lowest <= highest < math.inf:
        raise DipgoError(
            "fitted, guidance",
            found=f"{lowest:g} to {highest:g}",
            expected=f"two scales of at least {LEAST_SCALE:g}, the lower first",
            remedy="correct them, or leave them out",
        )


def fitted_of_provenance(provenance: Mapping[str, Any]) -> Fitted | None:
    """Returns what the provenance of a search of version 0.1 says, if it is from one."""
    scale = provenance.get("guidance_scale")
    if provenance.get("guidance") is not True or not isinstance(scale, Real):
        return None
    scale = max(float(scale), LEAST_SCALE)
    try:
        loras = msgspec.convert(provenance.get("loras", []), tuple[LoraRecord, ...])
    except msgspec.ValidationError:  # a provenance may hold anything
        return None
    return Fitted((scale, scale), loras=loras) if math.isfinite(scale) else None
