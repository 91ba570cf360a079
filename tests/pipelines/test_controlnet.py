"""ControlNet: a U-Net with one attached, against diffusers' own pipelines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DiTTransformer2DModel,
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.export import export
from dipgo.ir.plan.nodes import PROLOGUE
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.families.controlnet import attach_controlnet
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.eager import Gating
from tests.support.tiny_pipeline import (
    IMAGE_SIZE,
    WIDTH,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, WEIGHT, PROMPT = 4, 4.0, 0.7, "a red circle"
SMALL = {"conditioning_embedding_out_channels": (4, 8, 8)}
"""Four pixels a latent pixel, as the tiny VAE has."""


def _unet(**more: Any) -> UNet2DConditionModel:
    defaults = {"block_out_channels": (8, 16), "cross_attention_dim": WIDTH}
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=2,
        **{**defaults, **more},
    )


def _controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Its zero convolutions have random weights: else it would do nothing."""
    controlnet = ControlNetModel.from_unet(unet, **SMALL)
    for parameter in controlnet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return controlnet


@pytest.fixture
def pipeline(tmp_path: Path) -> StableDiffusionControlNetPipeline:
    torch.manual_seed(0)
    unet = _unet()
    made = StableDiffusionControlNetPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(tmp_path / "vocabulary"),
        unet=unet,
        controlnet=_controlnet(unet),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def _run_pipeline(
    pipeline: StableDiffusionControlNetPipeline,
    noise: torch.Tensor,
    image: torch.Tensor,
    **more: Any,
) -> torch.Tensor:
    latents: torch.Tensor = pipeline(
        [PROMPT] * len(noise),
        image=image,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        output_type="latent",
        **{"controlnet_conditioning_scale": WEIGHT, **more},
    ).images
    return latents


def _inputs(
    pipeline: StableDiffusionControlNetPipeline, noise: torch.Tensor, image: torch.Tensor
) -> dict[str, Any]:
    hidden, no_hidden = pipeline.encode_prompt(PROMPT, "cpu", len(noise), True)
    return {
        "latents": noise.numpy(),
        "encoder_hidden_states": torch.cat([no_hidden, hidden]).numpy(),
        "controlnet_cond": torch.cat([image, image]).numpy(),
        "conditioning_scale": WEIGHT,
        "guidance_scale": SCALE,
    }


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_gives_the_pipelines_latents(
    pipeline: StableDiffusionControlNetPipeline, batch: int, tmp_path: Path
) -> None:
    """And the control picture's embedding is made once, before the loop."""
    noise, image = torch.randn(batch, 4, 16, 16), torch.rand(batch, 3, IMAGE_SIZE, IMAGE_SIZE)
    expected = _run_pipeline(pipeline, noise, image)
    without = _run_pipeline(pipeline, noise, image, controlnet_conditioning_scale=0.0)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, batch=batch)
    runner = load(out)
    found = runner.run(_inputs(pipeline, noise, image))["latents"]
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}; of the ControlNet {relative_error(without, expected):.1e}")
    assert error < TOLERANCE < 0.01 < relative_error(without, expected)
    plan = runner.export.plan
    assert "controlnet" in plan.blocks
    in_loop = {call.callee for call in plan.calls if call.step != PROLOGUE}
    readers = {one.name for one in plan.callees if "controlnet_cond" in map(_name, one.inputs)}
    assert readers
    assert not readers & in_loop


@pytest.mark.slow
@torch.no_grad()
def test_a_further_size(pipeline: StableDiffusionControlNetPipeline, tmp_path: Path) -> None:
    """One export for two sizes: the control picture's goes with the latents'."""
    noise, image = torch.randn(1, 4, 8, 16), torch.rand(1, 3, IMAGE_SIZE // 2, IMAGE_SIZE)
    expected = _run_pipeline(pipeline, noise, image)
    further = [(IMAGE_SIZE // 2, IMAGE_SIZE)]
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, also_sizes=further)
    runner = load(out, size=f"{IMAGE_SIZE // 2}x{IMAGE_SIZE}")
    found = runner.run(_inputs(pipeline, noise, image))["latents"]
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE


@torch.no_grad()
def test_a_pipeline_of_an_export_takes_the_control_picture(
    pipeline: StableDiffusionControlNetPipeline, tmp_path: Path
) -> None:
    """As diffusers' pipeline for the same seed; three prompts are two batches."""
    image, generator = torch.rand(3, 3, IMAGE_SIZE, IMAGE_SIZE), torch.Generator().manual_seed(4)
    expected = pipeline(
        [PROMPT, "green", PROMPT],
        image=image,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=generator,
        output_type="latent",
        controlnet_conditioning_scale=WEIGHT,
    ).images
    ours = Pipeline.from_export(export(pipeline, "dense", tmp_path / "o", steps=STEPS, batch=2))
    given = {"controlnet_cond": image.numpy(), "conditioning_scale": WEIGHT}
    asked = {"guidance_scale": SCALE, "seed": 4, "output_type": "latent"}
    found = ours([PROMPT, "green", PROMPT], inputs=given, **asked).images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE
    one = ours([PROMPT] * 2, inputs=given | {"controlnet_cond": image[:1].numpy()}, **asked).images
    pair = (image[:1].numpy(), image[:1].numpy())
    both = ours([PROMPT] * 2, inputs=given | {"controlnet_cond": pair}, **asked).images
    assert np.array_equal(one, both)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"controlnet_cond": None},
            r"inputs, controlnet_cond: found none; expected f32\[2,3,64,64\], of",
        ),
        (
            {"mask": 1},
            "inputs, mask: found an input that .*; expected controlnet_cond conditioning_scale; ",
        ),
        (
            {"controlnet_cond": np.zeros((3, 3, 64, 64))},
            r"shape \[3, 3, 64, 64\]; expected f32\[1,",
        ),
        ({"controlnet_cond": (0, 0, 0)}, "found 3 arrays; expected one array, or with guidance"),
        ({"conditioning_scale": [1, 2]}, r"conditioning_scale: found an array of shape \[2\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    pipeline: StableDiffusionControlNetPipeline,
    changes: dict[str, Any],
    error: str,
    tmp_path: Path,
) -> None:
    ours = Pipeline.from_export(export(pipeline, "dense", tmp_path / "out", steps=1))
    given = {"controlnet_cond": np.zeros((1, 3, 64, 64)), "conditioning_scale": 1.0} | changes
    with pytest.raises(DipgoError, match=error):
        ours(PROMPT, inputs=given)


def _name(value: Any) -> str:
    return str(value.name)


@pytest.mark.slow
@torch.no_grad()
def test_at_its_key_steps_only(pipeline: StableDiffusionControlNetPipeline, tmp_path: Path) -> None:
    """Against the pipeline with the ControlNet's module hooked: the U-Net runs at every step."""
    noise, image = torch.randn(1, 4, 16, 16), torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    pipeline.scheduler.set_timesteps(STEPS)
    timesteps = pipeline.scheduler.timesteps.tolist()
    blocks = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "controlnet")
    gates = np.ones((STEPS, len(blocks)), bool)
    gates[[1, 3], -1] = False
    subnet = SubNet(STEPS, timesteps, blocks, gates, ("output",) * len(blocks))
    source = load_source(pipeline)
    with Gating(source.denoiser, subnet) as gating:

        def next_row(*_: Any, **__: Any) -> dict[str, Any]:
            gating.row = min(gating.row + 1, STEPS - 1)
            return {}

        expected = _run_pipeline(pipeline, noise, image, callback_on_step_end=next_row)
    runner = load(export(pipeline, subnet, tmp_path / "out"))
    found = runner.run(_inputs(pipeline, noise, image))["latents"]
    dense = _run_pipeline(pipeline, noise, image)
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}; of the gates {relative_error(dense, expected):.1e}")
    assert error < TOLERANCE < 1e-3 < relative_error(dense, expected)
    plan = runner.export.plan
    (segment,) = (one.name for one in plan.callees if "controlnet" in one.members)
    assert [call.step for call in plan.calls if call.callee == segment] == [0, 2]


def test_the_users_unet_stays_as_it_is(pipeline: StableDiffusionControlNetPipeline) -> None:
    source = load_source(pipeline)
    assert not hasattr(pipeline.unet, "controlnet")
    assert source.denoiser.controlnet is pipeline.controlnet
    assert source.denoiser.conv_in is pipeline.unet.conv_in
    assert replace(source, denoiser=pipeline.unet).config_sha256 != source.config_sha256


def test_several_controlnets_are_refused() -> None:
    unet = _unet()
    several = MultiControlNetModel([_controlnet(unet)] * 2)
    with pytest.raises(DipgoError, match=r"MultiControlNetModel beside UNet2DCond.* a single"):
        attach_controlnet(unet, several)
    with pytest.raises(DipgoError, match="found ControlNetModel beside DiTTransformer2DModel"):
        attach_controlnet(DiTTransformer2DModel(num_layers=1), _controlnet(unet))


@pytest.mark.parametrize(
    ("option", "value"), [("block_out_channels", (8, 8)), ("cross_attention_dim", 12)]
)
def test_a_controlnet_for_another_unet_is_refused(option: str, value: Any) -> None:
    other = _controlnet(_unet(**{option: value}))
    with pytest.raises(DipgoError, match=f"controlnet, {option}: found .*made for this model"):
        attach_controlnet(_unet(), other)
