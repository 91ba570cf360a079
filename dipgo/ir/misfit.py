"""Words the warnings of a SubNet that is used for what it was not fitted for, with the price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dipgo.common.errors import setting
from dipgo.ir.fitted import (
    Fitted,
    LoraRecord,
    MeasuredError,
    middle,
    same_scale,
    scales_in_words,
)

UNMEASURED = "what that costs was not measured"


@dataclass(frozen=True, slots=True)
class Use:
    """The use of a SubNet in an export, as far as every run of it shares it.

    Attributes:
        guided: Whether there is classifier-free guidance.
        latents: The shape of one picture's latents.
        strength: The strength of image-to-image, None without a picture.
        loras: The LoRAs in the weights.
    """

    guided: bool
    latents: tuple[int, ...]
    strength: float | None
    loras: tuple[LoraRecord, ...]


def fitted_facts(fitted: Fitted) -> dict[str, str]:
    """Returns what a SubNet was fitted for and its errors, by name, for `dipgo.inspect`."""
    facts = [
        "no guidance" if fitted.guidance is None else f"guidance {scales_in_words(fitted.guidance)}"
    ]
    if fitted.latents is not None:
        facts.append(f"latents {_shape(fitted.latents)}")
    if fitted.negative_prompt:
        facts.append(f"negative prompt {fitted.negative_prompt!r}")
    if fitted.strength is not None:
        facts.append(f"strength {fitted.strength:g}")
    if fitted.loras:
        facts.append(f"LoRAs {_names(fitted.loras)}")
    errors = ", ".join(map(error_in_words, fitted.errors))
    measured = {"latent error": f"{errors}{_count(fitted)}"} if errors else {}
    return {"fitted for": ", ".join(facts), **measured}


def misfits(fitted: Fitted | None, use: Use) -> Iterator[str]:
    """Yields a line for everything in an export's use that the SubNet was not fitted for."""
    if fitted is None:
        return
    if (fitted.guidance is not None) != use.guided:
        own = "none" if fitted.guidance is None else scales_in_words(fitted.guidance)
        used = "guidance" if use.guided else "none"
        yield _line("guidance", used, own, _price(fitted, _around(fitted, None)))
    if fitted.latents is not None and fitted.latents != use.latents:
        yield _line("latents", _shape(use.latents), _shape(fitted.latents), UNMEASURED)
    if fitted.strength != use.strength:
        used, own = (_or_none(value) for value in (use.strength, fitted.strength))
        yield _line(setting("strength"), used, own, UNMEASURED)
    if fitted.loras != use.loras:
        used, own = (_names(loras) for loras in (use.loras, fitted.loras))
        yield _line(setting("loras"), used, own, UNMEASURED)


def scale_misfit(fitted: Fitted | None, scale: float) -> str | None:
    """Returns a line if the SubNet was fitted for other guidance scales, else None."""
    if fitted is None or fitted.guidance is None or same_scale(fitted.nearest_scale(scale), scale):
        return None
    errors = (*_around(fitted, middle(fitted.guidance)), *_around(fitted, scale))
    own = scales_in_words(fitted.guidance)
    return _line(setting("guidance_scale"), f"{scale:g}", own, _price(fitted, errors))


def negative_misfit(fitted: Fitted | None, negatives: Sequence[str]) -> str | None:
    """Returns a line if a negative prompt is not the one that was fitted for, else None."""
    own = "" if fitted is None else fitted.negative_prompt or ""
    if fitted is None or all(negative == own for negative in negatives):
        return None
    errors = [] if fitted.guidance is None else _around(fitted, middle(fitted.guidance))
    with_one = [error for error in fitted.errors if error.negative_prompts]
    found = next(repr(negative) for negative in negatives if negative != own)
    price = _price(fitted, [*errors, *with_one]) if with_one else UNMEASURED
    return _line(setting("negative_prompt"), found, repr(own) if own else "none", price)


def _line(where: str, found: str, own: str, price: str) -> str:
    return f"{where}: found {found}; the SubNet was fitted for {own}; {price}"


def _around(fitted: Fitted, scale: float | None) -> list[MeasuredError]:
    """Returns what was measured at a scale, or else at the nearest scales on both sides."""
    measured = [error for error in fitted.errors if not error.negative_prompts]
    if scale is None:
        return [error for error in measured if error.guidance is None]
    at = {error.guidance: error for error in measured if error.guidance is not None}
    same = [each for each in at if same_scale(each, scale)]
    nearest = same or [
        *sorted(each for each in at if each < scale)[-1:],
        *sorted(each for each in at if each > scale)[:1],
    ]
    return [at[each] for each in nearest]


def _price(fitted: Fitted, errors: Sequence[MeasuredError]) -> str:
    """Returns some of the errors in words, those at low scales first."""
    if not errors:
        return UNMEASURED
    ordered = sorted(set(errors), key=lambda each: (each.guidance or 0.0, each.negative_prompts))
    return f"latent error against dense {', '.join(map(error_in_words, ordered))}{_count(fitted)}"


def _count(fitted: Fitted) -> str:
    return f" ({fitted.pictures} pictures)" if fitted.pictures else ""


def error_in_words(measured: MeasuredError) -> str:
    """Returns such as `0.0142 at 5`."""
    error = "not finite" if measured.error is None else f"{measured.error:.3g}"
    scale = "" if measured.guidance is None else f" at {measured.guidance:g}"
    return f"{error}{scale}{' with negative prompts' if measured.negative_prompts else ''}"


def _shape(latents: Sequence[int]) -> str:
    return "x".join(map(str, latents))


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _names(loras: Sequence[LoraRecord]) -> str:
    return ", ".join(f"{lora.name} at {lora.scale:g}" for lora in loras) or "none"
