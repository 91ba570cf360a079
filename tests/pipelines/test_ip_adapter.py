"""IP-Adapter: a U-Net that takes pictures as prompts, against diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.export import export
from dipgo.ir.plan.nodes import PROLOGUE
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.family import Geometry
from dipgo.models.registry import find_family
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import WIDTH, tiny_text_encoder, tiny_tokenizer, tiny_vae

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, PROMPT = 4, 4.0, "a red circle"
CLIP_WIDTH = 20
"""Of what an image encoder yields."""


def ip_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights, as a file of an IP-Adapter holds them: four tokens a picture."""
    tokens, width = 4, unet.config.cross_attention_dim
    image_proj = {
        "proj.weight": torch.randn(tokens * width, CLIP_WIDTH) / CLIP_WIDTH**0.5,
        "proj.bias": torch.randn(tokens * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    cross = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    modules = dict(unet.named_modules())
    adapter = {}
    for index, name in enumerate(cross):
        size = modules[name.removesuffix(".processor")].to_q.in_features
        for key in ("to_k_ip", "to_v_ip"):
            adapter[f"{2 * index + 1}.{key}.weight"] = torch.randn(size, width) / width**0.5
    return {"image_proj": image_proj, "ip_adapter": adapter}


@pytest.fixture
def pipeline(tmp_path: Path) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
    )
    made = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(tmp_path / "vocabulary"),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    unet._load_ip_adapter_weights([ip_adapter(unet)])
    unet.requires_grad_(False)
    made.set_ip_adapter_scale(0.6)
    return made


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_gives_the_pipelines_latents(
    pipeline: StableDiffusionPipeline, batch: int, tmp_path: Path
) -> None:
    """At the adapter's scale when exporting; what is made of the picture alone leaves the loop."""
    noise, picture = torch.randn(batch, 4, 16, 16), torch.randn(2, 1, CLIP_WIDTH)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, batch=batch)

    def run(scale: float) -> torch.Tensor:
        pipeline.set_ip_adapter_scale(scale)
        latents: torch.Tensor = pipeline(
            [PROMPT] * batch,
            ip_adapter_image_embeds=[picture],
            latents=noise,
            num_inference_steps=STEPS,
            guidance_scale=SCALE,
            output_type="latent",
        ).images
        return latents

    expected, without = run(0.6), run(0.0)
    runner = load(out)
    hidden, no_hidden = pipeline.encode_prompt(PROMPT, "cpu", batch, True)
    found = runner.run(
        {
            "latents": noise.numpy(),
            "encoder_hidden_states": torch.cat([no_hidden, hidden]).numpy(),
            "image_embeds": picture.repeat_interleave(batch, 0).numpy(),
            "guidance_scale": SCALE,
        }
    )["latents"]
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}; of the picture {relative_error(without, expected):.1e}")
    assert error < TOLERANCE < 0.01 < relative_error(without, expected)
    embeds = tuple(half[None].numpy() for half in picture)  # unconditional, conditional
    ours = Pipeline.from_export(out)(
        [PROMPT] * batch,
        latents=noise.numpy(),
        guidance_scale=SCALE,
        inputs={"image_embeds": embeds},
        output_type="latent",
    ).images
    assert relative_error(torch.from_numpy(ours), expected) < TOLERANCE
    plan = runner.export.plan
    in_loop = {call.callee for call in plan.calls if call.step != PROLOGUE}
    readers = {one.name for one in plan.callees if _reads(one, "image_embeds")}
    assert readers
    assert not readers & in_loop


def _reads(callee: Any, name: str) -> bool:
    return name in {value.name for value in callee.inputs}


def test_several_adapters_are_refused(pipeline: StableDiffusionPipeline) -> None:
    projection = ImageProjection(CLIP_WIDTH, WIDTH, 4)
    pipeline.unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection, projection])
    assert isinstance(find_family(pipeline.unet), UNetFamily)
    with pytest.raises(DipgoError, match="IP-Adapter: found ImageProjection ImageProjection; exp"):
        UNetFamily().conditioning(pipeline.unet, Geometry())
