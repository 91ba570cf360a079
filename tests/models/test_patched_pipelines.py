"""What diffusers can do to a denoiser is in its trace: it computes as the denoiser does then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, PAGIdentitySelfAttnProcessor2_0

from dipgo.compiler.trace.source import trace_source
from dipgo.models.guided import example_inputs, guided_denoiser
from dipgo.models.source import load_source
from tests.support.compare import relative_error
from tests.support.zoo_pipelines import bare_pipeline

TOLERANCE = 1e-5


class _Halved(AttnProcessor):
    def __call__(self, *arguments: Any, **more: Any) -> torch.Tensor:
        return 0.5 * super().__call__(*arguments, **more)


def _perturb(unet: Any) -> None:
    """As PAG's pipelines do: a part of the rows attends to itself alone."""
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.set_processor(PAGIdentitySelfAttnProcessor2_0())


def _through(unet: Any) -> None:
    block, original = unet.mid_block, unet.mid_block.forward
    block.forward = lambda *arguments, **more: 0.5 * original(*arguments, **more)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "FreeU": lambda unet: unet.enable_freeu(0.9, 0.2, 1.5, 1.6),
    "PAG": _perturb,
    "own processors": lambda unet: unet.set_attn_processor(_Halved()),
    "own forward": _through,
    "hook": lambda unet: unet.mid_block.register_forward_hook(lambda *call: 0.5 * call[-1]),
}
SAME: dict[str, Callable[[Any], Any]] = {
    "fused": lambda unet: unet.fuse_qkv_projections(),
    "slices": lambda unet: unet.set_attention_slice(1),
    "compiled": lambda unet: unet.compile(backend="eager"),
}


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", [*CHANGES, *SAME])
def test_the_trace_has_it(name: str) -> None:
    pipeline = bare_pipeline("three_levels")
    source = load_source(pipeline)
    geometry = source.at(source.geometry()).geometry
    example, _ = example_inputs(source.family, source.denoiser, geometry)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        key: torch.randn(value.shape, generator=generator) for key, value in example.items()
    } | {"timestep": torch.tensor(500.0)}
    guided = guided_denoiser(source.family, source.denoiser, geometry)
    plain = guided(*inputs.values())[0]
    (CHANGES | SAME)[name](pipeline.unet)
    expected = guided(*inputs.values())[0]
    graph = (traced := trace_source(load_source(pipeline), geometry, ())).graph
    nodes = [node.name for node in graph.nodes]
    (found,) = traced.module(nodes, list(inputs), [graph.output])(*inputs.values())
    assert relative_error(found, expected) < TOLERANCE
    assert (relative_error(plain, expected) > 100 * TOLERANCE) == (name in CHANGES)
