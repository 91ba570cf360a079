"""Inpainting: a U-Net of nine channels against diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)

from dipgo.engines import load
from dipgo.errors import DipgoError
from dipgo.export import export
from dipgo.models.families import find_family
from dipgo.models.family import Geometry
from dipgo.models.prompts import encode_prompts
from dipgo.models.source import load_source
from tests.test_parity import relative_error
from tests.tiny_pipeline import (
    IMAGE_SIZE,
    WIDTH,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, PROMPT = 4, 4.0, "a large red circle"


def _unet(**more: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        **{"in_channels": 9, **more},
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> StableDiffusionInpaintPipeline:
    torch.manual_seed(0)
    made = StableDiffusionInpaintPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(tmp_path / "vocabulary"),
        unet=_unet(),
        scheduler=EulerDiscreteScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_gives_the_pipelines_latents(
    pipeline: StableDiffusionInpaintPipeline, batch: int, tmp_path: Path
) -> None:
    """For the mask and the masked picture's latents that the pipeline gives its U-Net."""
    noise = torch.randn(batch, 4, 16, 16)
    beside: list[torch.Tensor] = []
    pipeline.unet.register_forward_pre_hook(lambda module, given: beside.append(given[0][:, 4:]))
    expected = pipeline(
        [PROMPT] * batch,
        image=torch.rand(batch, 3, IMAGE_SIZE, IMAGE_SIZE),
        mask_image=(torch.rand(batch, 1, IMAGE_SIZE, IMAGE_SIZE) > 0.5).float(),
        latents=noise,
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        strength=1.0,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        output_type="latent",
    ).images
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, batch=batch)
    runner = load(out)
    manifest = runner.export.manifest
    assert set(manifest.parts) == {"text_encoder", "vae_decoder"}
    hidden, no_hidden = pipeline.encode_prompt(PROMPT, "cpu", batch, True)
    given = {
        "latents": noise.numpy() * np.float32(manifest.sampler.init_noise_sigma),
        "encoder_hidden_states": torch.cat([no_hidden, hidden]).numpy(),
        "masked_image_latents": beside[0][:, 1:].numpy(),
        "guidance_scale": SCALE,
    }
    with pytest.raises(DipgoError, match="input mask: found missing"):
        runner.run(given)
    found = runner.run({**given, "mask": beside[0][:, :1].numpy()})["latents"]
    assert beside[0][:, :1].unique().tolist() == [0, 1]
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE


def test_channels_that_are_neither_a_states_nor_a_masks_are_refused() -> None:
    with pytest.raises(DipgoError, match="is for: in_channels 8"):
        find_family(_unet(in_channels=8))


def test_prompts_alone_cannot_be_searched_with(pipeline: StableDiffusionInpaintPipeline) -> None:
    source = load_source(pipeline)
    with pytest.raises(DipgoError, match="conditioning by encoder_hidden_states mask masked_image"):
        encode_prompts(source, [PROMPT], Geometry(guidance=False, tokens=source.tokens))
