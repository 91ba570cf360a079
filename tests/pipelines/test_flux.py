"""Flux: an export against diffusers' own pipeline, sizes, positions, and the published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.fold_constants import fold_wide_constants
from dipgo.compiler.trace.trace import trace
from dipgo.engines import load
from dipgo.export import export
from dipgo.ir.graph import Dependence
from dipgo.models.families.flux import FluxFamily
from dipgo.models.family import Geometry
from dipgo.models.registry import find_presets
from tests.support.architectures import trace_architecture
from tests.support.compare import relative_error
from tests.support.zoo import ZOO, case

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, HEIGHT, WIDTH = 4, 3.5, 64, 96


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("dynamic", [False, True])
def test_an_export_of_a_pipeline_gives_its_latents(dynamic: bool, tmp_path: Path) -> None:
    """Of a size of its own, with the shift that the pipeline works out of it."""
    torch.manual_seed(0)
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    pipeline = FluxPipeline(
        transformer=case("flux", "block").denoiser,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic),
        **dict.fromkeys(parts),
    )
    pipeline.set_progress_bar_config(disable=True)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, height=HEIGHT, width=WIDTH)
    runner = load(out)
    kinds = runner.inputs
    assert (runner.export.manifest.guidance, "guidance_scale" in kinds) == (False, False)
    hidden = torch.randn(kinds["encoder_hidden_states"].shape)
    pooled = torch.randn(kinds["pooled_projections"].shape)
    noise = torch.randn(kinds["latents"].shape)
    given = {"encoder_hidden_states": hidden.numpy(), "pooled_projections": pooled.numpy()}
    scale = np.full(1, SCALE, np.float32)
    found = runner.run({"latents": noise.numpy(), "guidance": scale, **given})["latents"]
    expected = pipeline(
        prompt_embeds=hidden,
        pooled_prompt_embeds=pooled,
        latents=noise,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        output_type="latent",
    ).images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"dynamic shifting {dynamic}: relative L2 {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.parametrize(("height", "use"), [(72, 64), (4, 16)])
def test_sizes_that_are_no_whole_patches(height: int, use: int) -> None:
    with pytest.raises(DipgoError, match=f"^height: found {height}; .*16.*; use {use}"):
        FluxFamily().latent_shape(ZOO["flux"].build(), Geometry(height=height))


def test_positions_are_two_tensors_that_all_blocks_share() -> None:
    """Cosines and sines f32[tokens + L, head width], computed when tracing, and no weights."""
    chosen = case("flux", "block")
    program = chosen.traced.program
    folded = [program.constants[name] for name in sorted(program.constants)]
    assert [tuple(one.shape) for one in folded] == [(7 + 24, 8)] * 2
    assert torch.allclose(folded[0] ** 2 + folded[1] ** 2, torch.ones(1))
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert all(one.dtype != torch.float64 for one in values if isinstance(one, torch.Tensor))
    counted = sum(node.parameters for node in chosen.traced.graph.nodes)
    assert counted == sum(one.numel() for one in chosen.denoiser.parameters())


class _WritesInPlace(torch.nn.Module):
    """Positions as diffusers' pipelines make them, and a tensor of numbers that stays as it is."""

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(4, dtype=torch.float64)
        rows[1:] = torch.arange(3) + 1.5
        return latents * rows.sin().float() + torch.arange(4) + timestep


def test_what_is_written_in_place_is_folded_too() -> None:
    example = {"latents": torch.randn(4), "timestep": torch.tensor(1.0)}
    roles = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP}
    traced = trace(_WritesInPlace(), example, roles, (), model_class="", config_sha256="")
    names = [node.name for node in traced.graph.nodes]
    (found,) = traced.module(names, list(example), [traced.graph.output])(*example.values())
    assert torch.allclose(found, _WritesInPlace()(*example.values()))
    (folded,) = traced.program.constants.values()
    assert folded.dtype == torch.float32
    before = len(traced.program.graph.nodes)
    fold_wide_constants(traced.program)
    assert len(traced.program.graph.nodes) == before


PUBLISHED = {"flux-dev": 11_901_408_320, "flux-schnell": 11_891_178_560}
"""Parameters of the transformers."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_the_published_parameters(name: str) -> None:
    with torch.device("meta"):
        denoiser = FluxTransformer2DModel(**find_presets()[name].denoiser_config)
    assert sum(one.numel() for one in denoiser.parameters()) == PUBLISHED[name]


@pytest.mark.slow
def test_modulations_leave_the_loop() -> None:
    """A quarter of the parameters."""
    graph = trace_architecture("flux-dev", FluxFamily()).graph
    assert sum(node.parameters for node in graph.nodes) == PUBLISHED["flux-dev"]
    in_loop = sum(one.parameters for one in graph.nodes if Dependence.STATE in one.dependence)
    assert in_loop < 0.75 * PUBLISHED["flux-dev"]
    assert len(graph.blocks) == 19 + 38
    assert graph.types[graph.output].shape == (1, 4096, 64)
