"""Warns where a pipeline's export or call is not what its SubNet was fitted for."""

from __future__ import annotations

from collections.abc import Sequence

from dipgo.common.warn import warn
from dipgo.ir.fitted import LEAST_SCALE
from dipgo.ir.manifest.records import Manifest
from dipgo.ir.misfit import Use, misfits, negative_misfit, scale_misfit
from dipgo.ir.types import TensorType


def warn_of_export(manifest: Manifest) -> None:
    """Warns of everything that all runs of an export share, on behalf of `from_export`'s caller."""
    latents = next(record for record in manifest.inputs if record.name == "latents")
    use = Use(
        manifest.guidance,
        TensorType.parse(latents.type).shape[1:],
        manifest.sampler.strength,
        tuple(manifest.model.loras),
    )
    for line in misfits(manifest.fitted, use):
        warn(line)


def negative_prompt_of(manifest: Manifest) -> str | None:
    """Returns the negative prompt for calls without one: what the SubNet was fitted for, if any."""
    fitted = manifest.fitted
    return fitted.negative_prompt if fitted is not None and manifest.guidance else None


def warn_of_call(manifest: Manifest, scale: float, negatives: Sequence[object] | None) -> None:
    """Warns of a call's guidance scale and negative prompts, on behalf of the call's caller.

    Embeddings in place of negative prompts cannot be compared.
    """
    if not manifest.guidance:
        return
    given = [""] if negatives is None else negatives
    texts = [negative for negative in given if isinstance(negative, str)]
    lines = (
        scale_misfit(manifest.fitted, max(scale, LEAST_SCALE)),
        negative_misfit(manifest.fitted, texts),
    )
    for line in filter(None, lines):
        warn(line)
