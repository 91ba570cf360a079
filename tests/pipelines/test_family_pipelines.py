"""Exports of further families' pipelines against these pipelines, run by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.export import export
from dipgo.models.families.pixart import PixArtFamily
from dipgo.models.family import Geometry
from dipgo.models.prompts import encode_prompts
from dipgo.models.registry import find_presets
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import WIDTH, tiny_text_encoder, tiny_tokenizer, tiny_vae
from tests.support.tiny_pipelines import tiny_sdxl
from tests.support.zoo import ZOO

TOLERANCE = 1e-5
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, PROMPT = 4, 4.0, "a large red circle"


def run_export(path: Path, noise: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Latents of an export, of unit noise."""
    runner = load(path)
    sigma = np.float32(runner.export.manifest.sampler.init_noise_sigma)
    given = {key: one.numpy() if torch.is_tensor(one) else one for key, one in inputs.items()}
    return torch.from_numpy(runner.run({"latents": noise.numpy() * sigma, **given})["latents"])


def _stable_diffusion(folder: Path, scheduler: Any, **config: Any) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(folder / "vocabulary"),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            **config,
        ),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
@torch.no_grad()
def test_stable_diffusion_2(tmp_path: Path) -> None:
    """Linear projections, a head width a level, and a predicted velocity."""
    torch.manual_seed(0)
    pipeline = _stable_diffusion(
        tmp_path,
        DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        upcast_attention=True,
    )
    noise = torch.randn(1, 4, 16, 16)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS)
    hidden, no_hidden = pipeline.encode_prompt(PROMPT, None, 1, True)
    hidden = torch.cat([no_hidden, hidden])
    found = run_export(out, noise, encoder_hidden_states=hidden, guidance_scale=SCALE)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    error = relative_error(found, pipeline(PROMPT, latents=noise, **options).images)
    print(f"Stable Diffusion 2: relative L2 {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.slow
@torch.no_grad()
def test_distilled_with_its_guidance(tmp_path: Path) -> None:
    """Guidance is embedded, and one export takes any scale."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    pipeline = _stable_diffusion(tmp_path, scheduler, attention_head_dim=2, time_cond_proj_dim=6)
    noise = torch.randn(1, 4, 16, 16)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS)
    assert not load(out).export.manifest.guidance
    hidden, _ = pipeline.encode_prompt(PROMPT, None, 1, False)
    made = []
    for scale in (SCALE, 8.5):
        embedded = pipeline.get_guidance_scale_embedding(torch.tensor([scale - 1]), 6)
        made.append(run_export(out, noise, encoder_hidden_states=hidden, timestep_cond=embedded))
        options = {"num_inference_steps": STEPS, "guidance_scale": scale, "output_type": "latent"}
        expected = pipeline(PROMPT, latents=noise, **options).images
        error = relative_error(made[-1], expected)
        print(f"distilled, scale {scale}: relative L2 {error:.1e}")
        assert error < TOLERANCE
        asked = {"guidance_scale": scale, "output_type": "latent"}
        found = Pipeline.from_export(out)(PROMPT, latents=noise.numpy(), **asked).images
        assert relative_error(torch.from_numpy(found), expected) < TOLERANCE
    assert relative_error(*made) > 10 * TOLERANCE


@pytest.mark.slow
@torch.no_grad()
def test_latent_consistency_from_the_directory_alone(tmp_path: Path) -> None:
    """At the pipeline's own scale, with what its sampler draws, for two prompts of one seed."""
    torch.manual_seed(0)
    parts = _stable_diffusion(tmp_path, None, attention_head_dim=2, time_cond_proj_dim=7)
    names = ("vae", "text_encoder", "tokenizer", "unet")
    pipeline = LatentConsistencyModelPipeline(
        **{name: getattr(parts, name) for name in names},
        scheduler=LCMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(5)
    options = {"num_inference_steps": STEPS, "generator": generator, "output_type": "latent"}
    expected = pipeline([PROMPT, "green"], **options).images
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS)
    found = Pipeline.from_export(out)([PROMPT, "green"], seed=5, output_type="latent").images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"latent consistency: relative L2 {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_latent_consistency_from_a_picture(strength: float, tmp_path: Path) -> None:
    """All four steps are run, spread over the strength."""
    torch.manual_seed(0)
    parts = _stable_diffusion(tmp_path, None, attention_head_dim=2, time_cond_proj_dim=7)
    names = ("vae", "text_encoder", "tokenizer", "unet")
    pipeline = LatentConsistencyModelImg2ImgPipeline(
        **{name: getattr(parts, name) for name in names},
        scheduler=LCMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = pipeline(
        PROMPT,
        image=picture,
        strength=strength,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="latent",
    ).images
    text_to_image = LatentConsistencyModelPipeline(**pipeline.components)
    out = export(text_to_image, "dense", tmp_path / "out", steps=STEPS, strength=strength)
    ours = Pipeline.from_export(out)
    image = (2 * picture[0] - 1).numpy()
    found = ours(PROMPT, image=image, seed=5, output_type="latent").images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"latent consistency from a picture, strength {strength}: relative L2 {error:.1e}")
    assert error < TOLERANCE
    assert len(ours.runner.export.plan.steps) == STEPS


PIXART: dict[type[Any], int] = {PixArtAlphaPipeline: 120, PixArtSigmaPipeline: 300}
"""Tokens of the prompt, by pipeline."""


def _pixart(kind: type[Any]) -> Any:
    """A model of 1024 pixels, without its text encoder; PixArt-alpha's takes sizes."""
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=6,
        num_layers=2,
        cross_attention_dim=12,
        sample_size=128,
        caption_channels=10,
        interpolation_scale=2,
        use_additional_conditions=kind is PixArtAlphaPipeline,
    )
    return kind(
        tokenizer=None,
        text_encoder=None,
        vae=tiny_vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


@pytest.mark.slow
@torch.no_grad()
@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_stable_diffusion_xl_turbo(steps: int, tmp_path: Path) -> None:
    """Few steps without guidance; what the sampler draws comes from the same seed."""
    torch.manual_seed(0)
    pipeline = tiny_sdxl(tmp_path)
    pipeline.scheduler = find_presets()["sdxl-turbo"].build_scheduler()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=0.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).images
    out = export(pipeline, "dense", tmp_path / "out", steps=steps, guidance=False)
    found = Pipeline.from_export(out)(PROMPT, seed=7, output_type="latent").images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", PIXART, ids=lambda kind: kind.__name__)
def test_pixart(kind: type[Any], tmp_path: Path) -> None:
    """At a size of its own, with prompts of which most tokens pad."""
    torch.manual_seed(0)
    pipeline = _pixart(kind)
    pipeline.set_progress_bar_config(disable=True)
    height, width, tokens = 64, 96, load_source(pipeline).tokens
    assert tokens == PIXART[kind]
    noise, hidden = torch.randn(1, 4, 16, 24), torch.randn(2, tokens, 10)
    mask = (torch.arange(tokens) < torch.tensor([[3], [20]])).to(torch.int64)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, height=height, width=width)
    inputs: dict[str, Any] = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}
    if kind is PixArtAlphaPipeline:
        inputs["resolution"] = torch.tensor([[height, width]] * 2, dtype=torch.float32)
        inputs["aspect_ratio"] = torch.tensor([[height / width]] * 2)
    found = run_export(out, noise, guidance_scale=SCALE, **inputs)
    expected = pipeline(
        negative_prompt=None,
        negative_prompt_embeds=hidden[:1],
        negative_prompt_attention_mask=mask[:1],
        prompt_embeds=hidden[1:],
        prompt_attention_mask=mask[1:],
        height=height,
        width=width,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    error = relative_error(found, expected)
    print(f"{kind.__name__}: relative L2 {error:.1e}")
    assert error < TOLERANCE
    shorter = mask * (torch.arange(tokens) < 2)
    other = run_export(
        out, noise, guidance_scale=SCALE, **{**inputs, "encoder_attention_mask": shorter}
    )
    assert relative_error(other, expected) > 10 * TOLERANCE


def test_a_size_of_no_whole_patches() -> None:
    """Patches of 2 × 2 latent pixels, of 8 pixels each."""
    with pytest.raises(DipgoError, match=r"^width: found 72; expected a multiple of 16.*; use 64"):
        PixArtFamily().latent_shape(ZOO["pixart_sigma"].build(), Geometry(width=72))


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of pictures of 16 × 16 pixels, saved to disk."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 12),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        attention_head_dim=None,
        norm_num_groups=4,
    )
    path = tmp_path_factory.mktemp("unconditional") / "pipeline"
    DDIMPipeline(unet, DDIMScheduler(clip_sample=False)).save_pretrained(path)
    return path


def test_unconditional(unconditional: Path, tmp_path: Path) -> None:
    """No conditioning and no guidance, though it is the default; the state is the picture."""
    out = export(unconditional, "dense", tmp_path / "out", steps=STEPS, batch=2)
    manifest = load(out).export.manifest
    assert not manifest.guidance
    assert [one.name for one in manifest.inputs] == ["latents"]
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    found = (run_export(out, noise) / 2 + 0.5).clamp(0, 1)
    pipeline = DDIMPipeline.from_pretrained(unconditional)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    options = {"batch_size": 2, "num_inference_steps": STEPS, "output_type": "np"}
    expected = torch.from_numpy(pipeline(generator=generator, **options).images)
    error = relative_error(found, expected.permute(0, 3, 1, 2))
    print(f"DDIMPipeline: relative L2 {error:.1e}")
    assert error < TOLERANCE
    with pytest.raises(DipgoError, match="guidance_scale"):
        run_export(out, noise, guidance_scale=SCALE)


@pytest.mark.slow
def test_an_unconditional_model_that_predicts_a_variance(tmp_path: Path) -> None:
    """Six channels of three: those of the variance are cut, as the scheduler does it."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        out_channels=6,
        block_out_channels=(8, 12),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()
    scheduler = DDPMScheduler(clip_sample=False, variance_type="learned_range")
    pipeline = DDPMPipeline(unet, scheduler)
    with pytest.raises(DipgoError, match="variance_type=learned_range, the variance that the mod"):
        export(pipeline, "dense", tmp_path / "none", steps=STEPS)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, scheduler="dpm++")
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    found = (run_export(out, noise) / 2 + 0.5).clamp(0, 1)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "output_type": "np"}
    expected = pipeline(generator=torch.Generator().manual_seed(5), **options).images
    error = relative_error(found, torch.from_numpy(expected).permute(0, 3, 1, 2))
    print(f"DDPMPipeline with a variance: relative L2 {error:.1e}")
    assert error < TOLERANCE


def test_sizes_of_pictures_without_a_vae(unconditional: Path, tmp_path: Path) -> None:
    """One pixel a latent."""
    out = export(unconditional, "dense", tmp_path / "out", steps=2, height=8, width=24)
    assert load(out).inputs["latents"].shape == (1, 3, 8, 24)


def test_a_search_needs_no_prompts_of_an_unconditional_model(unconditional: Path) -> None:
    """They count pictures: the rows have noise of their own and nothing else."""
    source = load_source(unconditional)
    assert encode_prompts(source, ["", ""], Geometry(batch=2, guidance=False)) == {}
