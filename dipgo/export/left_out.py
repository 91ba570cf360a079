"""Names what a pipeline has and its export is without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from dipgo.export.parts import TEXT_ENCODER, Part
from dipgo.models.families.unet_inputs import takes_image_prompt
from dipgo.models.inventory import components
from dipgo.models.model import SizedModel

REASONS = {
    "safety_checker": "pictures of an export are not checked",
    "image_encoder": "a run is given the image_embeds that it makes",
    "watermark": "pictures of an export have none",
}

WITH_OTHERS = ("scheduler", "feature_extractor")
"""The sampler is read off the first; the second prepares pictures for models that are named."""


def left_out(model: SizedModel, parts: Sequence[Part]) -> dict[str, str]:
    """Returns the components of a pipeline of which an export has nothing, each with the reason.

    Args:
        model: The model at the export's size.
        parts: The parts of the export besides the denoiser.
    """
    pipeline = model.pipeline
    if pipeline is None:
        return {}
    used = {id(module) for part in parts for module in part.source.modules()}
    used |= {id(module) for module in model.denoiser.modules()}
    if any(part.name == TEXT_ENCODER for part in parts) and model.text_encoding is not None:
        used |= {id(tokens.tokenizer) for tokens in model.text_encoding.tokens}
    missing = [
        name
        for name, component in components(pipeline).items()
        if name not in WITH_OTHERS and used.isdisjoint(_identities(component))
    ]
    if "image_encoder" in missing and not takes_image_prompt(model.denoiser):
        missing.remove("image_encoder")  # diffusers' pipelines do not read it either
    if getattr(pipeline, "watermark", None) is not None:
        missing.append("watermark")
    return {name: REASONS.get(name, "nothing in it reads this") for name in missing}


def _identities(component: Any) -> set[int]:
    """Returns the identities of a component and, if it is a model, of the modules in it."""
    modules = component.modules() if isinstance(component, nn.Module) else ()
    return {id(component), *map(id, modules)}
