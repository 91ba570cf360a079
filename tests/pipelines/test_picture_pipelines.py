"""Pipelines whose class begins with a picture: exported whole, or refused without a strength."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextModelWithProjection

from dipgo.common.errors import DipgoError
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import (
    IMAGE_SIZE,
    WIDTH,
    save_tiny_pipeline,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)
from tests.support.tiny_pipelines import tiny_sd3, tiny_sdxl

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after the last steps."""
STEPS, STRENGTH, SCALE, PROMPT = 5, 0.6, 4.0, "a red circle"


def _of_parts(cls: Any, pipeline: Any, **options: Any) -> Any:
    return cls(**pipeline.components, **options)


def _refiner(folder: Path) -> Any:
    """The second CLIP alone, and sizes of five numbers, the last of them a score."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=(2, 4),
        cross_attention_dim=WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 * 4 + WIDTH,
    )
    return StableDiffusionXLImg2ImgPipeline(
        vae=tiny_vae(),
        text_encoder=None,
        text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection),
        tokenizer=None,
        tokenizer_2=tiny_tokenizer(folder / "vocabulary"),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


BUILDERS: dict[str, Callable[[Path], Any]] = {
    "sd": lambda folder: StableDiffusionImg2ImgPipeline.from_pretrained(
        save_tiny_pipeline(folder / "pipeline")
    ),
    "sdxl": lambda folder: _of_parts(
        StableDiffusionXLImg2ImgPipeline, tiny_sdxl(folder), add_watermarker=False
    ),
    "refiner": _refiner,
    "sd3": lambda folder: _of_parts(StableDiffusion3Img2ImgPipeline, tiny_sd3(folder)),
}


def _built(name: str, folder: Path) -> Any:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        pipeline = BUILDERS[name](folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "negative"),
    [("sd", "dark"), ("sdxl", None), ("refiner", None), ("refiner", "dark"), ("sd3", None)],
)
def test_an_export_gives_the_latents_of_the_pipeline(
    name: str, negative: str | None, tmp_path: Path
) -> None:
    """Failed at 21ce821 for all: no text encoder, and the refiner's widths were others."""
    pipeline = _built(name, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3))
    picture = Image.fromarray(pixels.astype(np.uint8))
    expected = pipeline(
        PROMPT,
        negative_prompt=negative,
        image=picture,
        strength=STRENGTH,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="latent",
    ).images
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, strength=STRENGTH)
    found = Pipeline.from_export(out)(
        PROMPT,
        negative_prompt=negative,
        image=picture,
        guidance_scale=SCALE,
        seed=5,
        output_type="latent",
    ).images
    assert relative_error(torch.from_numpy(found), expected) < TOLERANCE


@pytest.mark.parametrize("name", BUILDERS)
def test_without_a_strength_it_is_refused(name: str, tmp_path: Path) -> None:
    """Failed at 21ce821: the export began with noise."""
    pipeline = _built(name, tmp_path)
    with pytest.raises(DipgoError, match=r"strength: found none for .*begins with a picture"):
        export(pipeline, "dense", tmp_path / "out", steps=STEPS)


def test_options_that_do_not_belong_to_the_denoiser_are_refused(tmp_path: Path) -> None:
    """A refiner without its option: sizes of six numbers leave too few for the text."""
    pipeline = _built("refiner", tmp_path)
    pipeline.register_to_config(requires_aesthetics_score=False)
    with pytest.raises(DipgoError, match=r"text_embeds: found \[2, 32\].*expected \[2, 28\]"):
        export(pipeline, "dense", tmp_path / "out", steps=STEPS, strength=STRENGTH)
