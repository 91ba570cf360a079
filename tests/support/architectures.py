"""Published architectures, traced on the meta device."""

from __future__ import annotations

import diffusers
import torch

from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.block_patterns import match_blocks
from dipgo.models.family import Family, Geometry
from dipgo.models.guided import example_inputs, guided_denoiser
from dipgo.models.registry import find_presets


def trace_architecture(architecture: str, family: Family, more: tuple[str, ...] = ()) -> Traced:
    """A published architecture on the meta device, batch 1 without guidance.

    Its blocks are those that the family gates, and those that `more` patterns match.
    """
    chosen = find_presets()[architecture]
    with torch.device("meta"):
        denoiser = getattr(diffusers, chosen.denoiser_class)(**chosen.denoiser_config).eval()
    geometry = Geometry(guidance=False, tokens=chosen.tokens)
    example, roles = example_inputs(family, denoiser, geometry)
    guided = guided_denoiser(family, denoiser, geometry)
    blocks = match_blocks(denoiser, (*more, *family.default_blocks))
    return trace(
        guided, example, roles, blocks, model_class=chosen.denoiser_class, config_sha256=""
    )
