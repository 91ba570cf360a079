"""Inpainting: a U-Net of nine channels against diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from PIL import Image

import dipgo.run.__main__
from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.engines import load
from dipgo.export import export
from dipgo.models.family import Geometry
from dipgo.models.prompts import encode_prompts
from dipgo.models.registry import find_family
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import (
    IMAGE_SIZE,
    WIDTH,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)
from tests.support.tiny_pipelines import tiny_sdxl

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


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_gives_the_pipelines_latents(
    pipeline: StableDiffusionInpaintPipeline, batch: int, tmp_path: Path
) -> None:
    """For the mask and the masked picture's latents that the pipeline gives its U-Net."""
    noise = torch.randn(batch, 4, 16, 16)
    beside: list[torch.Tensor] = []
    hook = pipeline.unet.register_forward_pre_hook(
        lambda module, given: beside.append(given[0][:, 4:])
    )
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
    hook.remove()
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, batch=batch)
    runner = load(out)
    manifest = runner.export.manifest
    assert set(manifest.parts) == {"text_encoder", "vae_encoder", "vae_decoder"}
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


def _pictures(count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Pictures and masks, of random colours and greys."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    greys = random.integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    return [*map(Image.fromarray, colours)], [*map(Image.fromarray, greys)]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("scheduler", "batch", "pictures", "seed", "strength"),
    [
        ("euler", 1, 1, 5, None),
        ("euler-a", 2, 2, 5, None),
        ("euler-a", 2, 1, [5, 7], None),
        ("heun", 2, 2, [5, 7], 0.6),
        ("euler-a", 2, 1, [5, 7], 0.6),
        ("euler-a", 2, 1, [5, 7], 1.0),
    ],
)
def test_the_same_seed_gives_the_pipelines_latents(
    pipeline: StableDiffusionInpaintPipeline,
    scheduler: str,
    batch: int,
    pictures: int,
    seed: int | list[int],
    strength: float | None,
    tmp_path: Path,
) -> None:
    """From pictures and masks: encoded, sampled, and the noise drawn, all in diffusers' order."""
    pipeline.scheduler = make_scheduler(pipeline.scheduler, scheduler)
    images, masks = _pictures(pictures)
    seeds = seed if isinstance(seed, list) else [seed]
    generators = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    expected = pipeline(
        [PROMPT] * batch,
        image=images,
        mask_image=masks,
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        strength=strength or 1.0,
        num_inference_steps=5,
        guidance_scale=SCALE,
        generator=generators if isinstance(seed, list) else generators[0],
        output_type="latent",
    ).images
    out = export(pipeline, "dense", tmp_path / "out", steps=5, batch=batch, strength=strength)
    options: dict[str, Any] = {"seed": seed, "guidance_scale": SCALE, "output_type": "latent"}
    ours, prompts = Pipeline.from_export(out), [PROMPT] * batch
    found = ours(prompts, image=images, mask_image=masks, **options).images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE
    pixels = np.stack([np.asarray(one, np.float32) / 127.5 - 1 for one in images])
    greys = np.stack([np.asarray(one, np.float32) / 255 for one in masks])
    arrays = {"image": pixels.transpose(0, 3, 1, 2).clip(-1, 1), "mask_image": greys}
    again = ours(prompts, **arrays, **options).images
    assert np.abs(again - found).max() < 1e-4 * np.abs(found).max()


@pytest.mark.slow
@torch.no_grad()
def test_stable_diffusion_xl(tmp_path: Path) -> None:
    """Its own inpainting pipeline, at a strength, from one picture for two prompts."""
    torch.manual_seed(0)
    plain = tiny_sdxl(tmp_path)
    parts = {key: one for key, one in plain.components.items() if key not in ("unet", "scheduler")}
    pipeline = StableDiffusionXLInpaintPipeline(
        **{**parts, "image_encoder": None, "feature_extractor": None},
        unet=UNet2DConditionModel.from_config(plain.unet.config, in_channels=9, out_channels=4),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    (picture,), (mask,) = _pictures(1)
    expected = pipeline(
        [PROMPT] * 2,
        image=picture,
        mask_image=mask,
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        strength=0.8,
        num_inference_steps=5,
        guidance_scale=SCALE,
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="latent",
    ).images
    out = export(pipeline, "dense", tmp_path / "out", steps=5, batch=2, strength=0.8)
    options: dict[str, Any] = {"seed": 5, "guidance_scale": SCALE, "output_type": "latent"}
    ours = Pipeline.from_export(out)
    found = ours([PROMPT] * 2, image=picture, mask_image=mask, **options).images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE


def test_by_the_command(pipeline: StableDiffusionInpaintPipeline, tmp_path: Path) -> None:
    """Prompt, picture and mask to a picture; another mask makes another."""
    out = export(pipeline, "dense", tmp_path / "out", steps=2)
    (picture,), (mask,) = _pictures(1)
    picture.save(tmp_path / "in.png")
    mask.save(tmp_path / "mask.png")
    Image.new("L", picture.size, 255).save(tmp_path / "all.png")
    made = []
    for name in ("mask.png", "all.png"):
        given = [
            out,
            "--prompt",
            PROMPT,
            "--seed",
            "0",
            "--from-image",
            tmp_path / "in.png",
            "--mask-image",
        ]
        given += [tmp_path / name, "--latents", tmp_path / "made.npy"]
        assert run_command(dipgo.run.__main__.main, list(map(str, given))) == 0
        made.append(np.load(tmp_path / "made.npy"))
    assert np.abs(made[0] - made[1]).max() > 1e-3


@pytest.fixture(scope="module")
def plain(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Of a model that does not paint within a mask."""
    out = tmp_path_factory.mktemp("plain") / "out"
    return Pipeline.from_export(export(tiny_pipeline, "dense", out, steps=1))


def test_what_is_refused(
    pipeline: StableDiffusionInpaintPipeline, plain: Pipeline, tmp_path: Path
) -> None:
    ours = Pipeline.from_export(export(pipeline, "dense", tmp_path / "out", steps=1))
    (picture,), (mask,) = _pictures(1)
    mask_latents = {"mask": np.zeros((1, 1, 16, 16), np.float32)}
    for given, words in (
        ({"mask_image": mask}, "image: found none; expected the picture that the mask is of"),
        ({"image": picture}, r"image: found a picture; .*with a mask give mask_image= too"),
        ({}, "inputs, mask: found none"),
        (
            {"image": picture, "mask_image": mask.resize((8, 8))},
            "mask_image: found 8 x 8 pixels; expected a PIL picture of 64 x 64",
        ),
        (
            {"image": picture, "mask_image": np.full((IMAGE_SIZE, IMAGE_SIZE), 2.0)},
            r"mask_image: found numbers of shape \[64, 64\], or outside \[0, 1\]",
        ),
        (
            {"image": picture, "mask_image": [mask] * 3},
            "mask_image: found 3 pictures; expected one, or as many as prompts: 1",
        ),
        (
            {"image": picture, "mask_image": mask, "inputs": mask_latents},
            "inputs, mask: found an array, besides the picture and mask",
        ),
    ):
        with pytest.raises(DipgoError, match=words):
            ours(PROMPT, **given)
    with pytest.raises(DipgoError, match="mask_image: found a mask for a model that does not"):
        plain(PROMPT, image=picture, mask_image=mask)


def test_channels_that_are_neither_a_states_nor_a_masks_are_refused() -> None:
    with pytest.raises(DipgoError, match="is for: in_channels 8"):
        find_family(_unet(in_channels=8))


def test_prompts_alone_cannot_be_searched_with(pipeline: StableDiffusionInpaintPipeline) -> None:
    source = load_source(pipeline)
    with pytest.raises(DipgoError, match="conditioning by encoder_hidden_states mask masked_image"):
        encode_prompts(source, [PROMPT], Geometry(guidance=False, tokens=source.tokens))
