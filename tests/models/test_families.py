"""Families: which denoisers they are for, and exports of pipelines against diffusers' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.export import export
from dipgo.models.families.sd3 import SD3Family
from dipgo.models.family import Geometry
from dipgo.models.registry import built_in_families, find_family
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import IMAGE_SIZE
from tests.support.tiny_pipelines import tiny_sd3, tiny_sdxl
from tests.support.zoo import ZOO

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, PROMPT = 4, 4.0, "a large red circle"


@pytest.mark.parametrize("name", ZOO)
def test_one_family_fits(name: str) -> None:
    denoiser = ZOO[name].build()
    fitting = [type(family) for family in built_in_families() if family.fits(denoiser)]
    assert fitting == [type(ZOO[name].family)]


OPTIONS: list[dict[str, Any]] = [
    {"addition_embed_type": "image", "encoder_hid_dim": 12},
    {"num_class_embeds": 10},
    {"class_embed_type": "timestep"},
    {"class_embed_type": "timestep", "time_cond_proj_dim": 8},
    {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 12},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_a_unet_of_more_inputs_is_refused(options: dict[str, Any]) -> None:
    """What is found names the option; what is expected lists all families."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**options)
    option, value = next(iter(options.items()))
    with pytest.raises(DipgoError) as error:
        find_family(unet)
    found, expected = str(error.value).split("; expected ")
    assert "denoiser UNet2DConditionModel: found a configuration" in found
    assert f"{option} {value!r}" in found
    assert expected.startswith(", ".join(family.denoisers for family in built_in_families()))


def test_an_unconditional_unet_of_classes_is_refused() -> None:
    with torch.device("meta"):
        unet = UNet2DModel(num_class_embeds=10)
    message = "denoiser UNet2DModel: found a configuration .*: num_class_embeds 10; expected"
    with pytest.raises(DipgoError, match=message):
        find_family(unet)


def test_a_class_that_no_family_is_for_is_refused() -> None:
    with pytest.raises(DipgoError, match="denoiser Linear: found a class that no adapter"):
        find_family(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(("height", "use"), [(72, 64), (1024, 128)])
def test_sizes_that_sd3_has_no_positions_for(height: int, use: int) -> None:
    """Patches of 2 × 2 latent pixels, of 8 pixels each; positions for 8 patches a side."""
    with pytest.raises(DipgoError, match=f"^height: found {height}; .* at most 128; use {use}"):
        SD3Family().latent_shape(ZOO["sd3"].build(), Geometry(height=height))


def _conditioning_of_sdxl(pipeline: StableDiffusionXLPipeline) -> dict[str, torch.Tensor]:
    hidden, no_hidden, pooled, no_pooled = pipeline.encode_prompt(PROMPT)
    sizes = torch.tensor([IMAGE_SIZE, IMAGE_SIZE, 0, 0, IMAGE_SIZE, IMAGE_SIZE])
    return {
        "encoder_hidden_states": torch.cat([no_hidden, hidden]),
        "text_embeds": torch.cat([no_pooled, pooled]),
        "time_ids": sizes.float().expand(2, -1),
    }


def _conditioning_of_sd3(pipeline: StableDiffusion3Pipeline) -> dict[str, torch.Tensor]:
    hidden, no_hidden, pooled, no_pooled = pipeline.encode_prompt(PROMPT, None, None)
    return {
        "encoder_hidden_states": torch.cat([no_hidden, hidden]),
        "pooled_projections": torch.cat([no_pooled, pooled]),
    }


PIPELINES: dict[str, tuple[Callable[[Path], Any], Callable[[Any], dict[str, torch.Tensor]]]] = {
    "sdxl": (tiny_sdxl, _conditioning_of_sdxl),
    "sd3": (tiny_sd3, _conditioning_of_sd3),
}


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", PIPELINES)
def test_an_export_of_a_pipeline_gives_its_latents(name: str, tmp_path: Path) -> None:
    """With conditioning that is made outside, by the pipeline itself."""
    build, condition = PIPELINES[name]
    torch.manual_seed(0)
    pipeline = build(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS)
    given = {key: one.numpy() for key, one in condition(pipeline).items()}
    runner = load(out)
    manifest = runner.export.manifest
    state = noise.numpy() * np.float32(manifest.sampler.init_noise_sigma)
    found = runner.run({"latents": state, "guidance_scale": SCALE, **given})["latents"]
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    expected = pipeline(PROMPT, latents=noise, **options).images
    assert relative_error(torch.from_numpy(found), expected) < TOLERANCE
    assert set(manifest.parts) == {"text_encoder", "vae_decoder"}
