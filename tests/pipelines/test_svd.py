"""Stable Video Diffusion: an export against diffusers' own pipeline, and the published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.runner import Part
from dipgo.export import export, refit
from dipgo.models.families.svd import SVDFamily
from dipgo.models.family import Geometry
from dipgo.models.registry import find_presets
from dipgo.run.__main__ import main as run
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.zoo import ZOO, case

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, HEIGHT, WIDTH, SIDE = 4, 16, 24, 16
FPS, BUCKET = 7, 127


def _pipeline(side: int = SIDE) -> StableVideoDiffusionPipeline:
    """Two pixels a latent pixel, two channels; the published sampler. CLIP sees `side` pixels."""
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 2,
        block_out_channels=(32, 32),
        layers_per_block=1,
        latent_channels=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=12,
        image_size=side,
        patch_size=8,
    )
    return StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=case("svd", "block").denoiser,
        scheduler=find_presets()["svd"].build_scheduler(),
        feature_extractor=CLIPImageProcessor(),
    )


def _conditioning(pipeline: Any, image: torch.Tensor) -> dict[str, np.ndarray]:
    """By the pipeline's own functions, without noise on the picture."""
    sized = pipeline.video_processor.preprocess(image, height=HEIGHT, width=WIDTH)
    latents = pipeline._encode_vae_image(sized, "cpu", 1, True)
    frames = pipeline.unet.config.num_frames
    given = {
        "encoder_hidden_states": pipeline._encode_image(image, "cpu", 1, True),
        "added_time_ids": torch.tensor([[FPS - 1.0, BUCKET, 0.0]] * 2),
        "image_latents": latents.unsqueeze(1).repeat(1, frames, 1, 1, 1),
    }
    return {name: one.numpy() for name, one in given.items()}


@pytest.mark.slow
@torch.no_grad()
def test_an_export_of_a_pipeline_gives_its_latents_and_pictures(tmp_path: Path) -> None:
    """Karras' sigmas, v-prediction, continuous timesteps, a scale from 1.5 to 3 over the frames."""
    pipeline = _pipeline()
    pipeline.set_progress_bar_config(disable=True)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, height=HEIGHT, width=WIDTH)
    runner = load(out)
    image = torch.rand(1, 3, SIDE, SIDE)
    noise = torch.randn(runner.inputs["latents"].shape)
    sigma = np.float32(runner.export.manifest.sampler.init_noise_sigma)
    scales = {"min_guidance_scale": 1.5, "guidance_scale": 3.0}
    given = {**scales, **_conditioning(pipeline, image)}
    found = runner.run({"latents": noise.numpy() * sigma, **given})["latents"]
    expected = pipeline(
        image,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        min_guidance_scale=1.5,
        max_guidance_scale=3.0,
        fps=FPS,
        motion_bucket_id=BUCKET,
        noise_aug_strength=0.0,
        latents=noise,
        output_type="latent",
    ).frames
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative L2 {error:.1e}")
    assert error < TOLERANCE
    pictures = Part(runner, "vae_decoder")({"latents": found})["image"]
    decoded = pipeline.decode_latents(expected, expected.shape[1]).transpose(1, 2)
    assert relative_error(torch.from_numpy(pictures), decoded) < TOLERANCE


@torch.no_grad()
def test_a_pipeline_of_an_export_makes_videos(tmp_path: Path) -> None:
    """Two at once in batches of one; what is made of the picture is given, and no prompt."""
    pipeline = _pipeline()
    options = {"steps": 2, "height": HEIGHT, "width": WIDTH}
    out = export(pipeline, "dense", tmp_path / "out", **options)
    ours = Pipeline.from_export(out)
    given = _conditioning(pipeline, torch.rand(1, 3, SIDE, SIDE))
    halves = {name: tuple(np.split(one, 2)) for name, one in given.items()}
    asked = {"inputs": halves | {"min_guidance_scale": 1.5}, "guidance_scale": 3.0}
    noise = np.random.default_rng(0).normal(size=(2, *ours.runner.inputs["latents"].shape[1:]))
    latents = noise.astype(np.float32)
    both = ours([None, None], latents=latents, output_type="latent", **asked).images
    sigma = np.float32(ours.manifest.sampler.init_noise_sigma)
    scales = {"min_guidance_scale": 1.5, "guidance_scale": 3.0}
    single = ours.runner.run({"latents": latents[1:] * sigma, **scales, **given})["latents"]
    assert np.array_equal(both[1:], single)
    videos = ours([None, None], latents=latents, output_type="np", **asked).images
    frames = pipeline.unet.config.num_frames
    assert videos.shape == (2, frames, HEIGHT, WIDTH, 3)
    expected = pipeline.decode_latents(torch.from_numpy(both), frames, decode_chunk_size=frames)
    wanted = (expected.permute(0, 2, 3, 4, 1) / 2 + 0.5).clamp(0, 1).numpy()
    assert np.abs(videos - wanted).max() < 1e-4
    pictures = ours(latents=latents[:1], **asked).images
    assert [len(one) for one in pictures] == [frames]
    assert pictures[0][0].size == (WIDTH, HEIGHT)
    default = {**asked, "guidance_scale": None, "output_type": "latent"}
    assert np.array_equal(
        ours(latents=latents[:1], **default).images, both[:1]
    )  # 3, diffusers' own
    with pytest.raises(DipgoError, match="prompt 'a cat': found a prompt for a model that takes"):
        ours("a cat", latents=latents[:1], **asked)
    with pytest.raises(DipgoError, match="inputs, encoder_hidden_states: found none"):
        ours(latents=latents[:1], inputs={"min_guidance_scale": 1.0})
    np.savez(tmp_path / "in.npz", min_guidance_scale=1.5, **given)
    run([str(out), "--inputs", str(tmp_path / "in.npz"), "--image", str(tmp_path / "out.png")])
    with pytest.raises(DipgoError, match=r"--image: found .*out\.jpg for a video"):
        run([str(out), "--image", str(tmp_path / "out.jpg")])
    with Image.open(tmp_path / "out.png") as video:
        assert video.n_frames == frames


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("height", [HEIGHT, 256], ids=["made larger", "made smaller"])
def test_a_video_of_a_picture_from_the_directory_alone(height: int, tmp_path: Path) -> None:
    """By the same seed: noise on the picture, then that of the frames; CLIP sees 224 pixels."""
    pipeline = _pipeline(224)
    pipeline.set_progress_bar_config(disable=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, WIDTH, 3), np.uint8)
    picture = Image.fromarray(pixels)
    expected = pipeline(
        picture,
        height=height,
        width=WIDTH,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="latent",
    ).frames
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS, height=height, width=WIDTH)
    ours = Pipeline.from_export(out)
    found = ours(image=picture, seed=3, output_type="latent").images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE
    array = (pixels.transpose(2, 0, 1) / np.float32(127.5) - 1).clip(-1, 1)
    still = {"added_time_ids": np.array([[6, 127, 0]]), "min_guidance_scale": 2.0}
    two = ours(image=[array, -array], inputs=still, seed=[3, 4], output_type="latent").images
    assert two.shape[0] == 2
    assert relative_error(torch.from_numpy(two[:1]), expected) > TOLERANCE
    given = {"encoder_hidden_states": np.zeros((2, 1, 12)), **still}
    other = ours(image=picture, inputs=given, seed=3, output_type="latent").images
    assert relative_error(torch.from_numpy(other), torch.from_numpy(two[:1])) > TOLERANCE
    ids = np.array([[6, 127, 0.02], [6, 127, 0.5]])
    both = ours(
        image=[array, picture], inputs={"added_time_ids": ids}, seed=[3, 3], output_type="latent"
    ).images
    assert relative_error(torch.from_numpy(both[:1]), expected) < TOLERANCE
    assert relative_error(torch.from_numpy(both[1:]), expected) > TOLERANCE
    with pytest.raises(
        DipgoError, match=r"inputs, added_time_ids: found an array of shape \[1, 2\]"
    ):
        ours(image=picture, inputs={"added_time_ids": np.zeros((1, 2))})
    run([str(out), "--from-image", str(_saved(picture, tmp_path)), "--image", f"{tmp_path}/o.webp"])
    with Image.open(tmp_path / "o.webp") as video:
        assert video.size == (WIDTH, height)
    with pytest.raises(DipgoError, match=r"image: found 8 x 8 pixels; .* PIL picture of 24 x"):
        ours(image=picture.resize((8, 8)))


@pytest.mark.slow
def test_in_half_precision_and_refitted(tmp_path: Path) -> None:
    """Its encoders narrow too; another model's weights give that model's export."""
    other = _pipeline(224)
    for part in (other.image_encoder, other.vae, other.unet):
        for parameter in part.parameters():
            parameter.data *= 1.01
    options: dict[str, Any] = {"steps": 2, "height": HEIGHT, "width": WIDTH, "precision": "fp16"}
    first = export(_pipeline(224), "dense", tmp_path / "first", **options)
    manifest = load(first).export.manifest
    assert {"image_encoder", "vae_encoder"} <= manifest.parts.keys() & manifest.numerics.keys()
    expected = export(other, "dense", tmp_path / "expected", **options)
    found = refit(first, other, tmp_path / "found")
    for path in expected.iterdir():
        assert path.read_bytes() == (found / path.name).read_bytes(), path.name
    picture = np.zeros((3, HEIGHT, WIDTH))
    assert np.isfinite(Pipeline.from_export(found)(image=picture, output_type="np").images).all()


@pytest.mark.slow
def test_without_an_image_encoder_the_caller_gives_what_it_makes(tmp_path: Path) -> None:
    pipeline = _pipeline()
    pipeline.image_encoder = None
    out = export(pipeline, "dense", tmp_path / "out", steps=1, height=HEIGHT, width=WIDTH)
    ours = Pipeline.from_export(out)
    assert set(ours.manifest.parts) == {"vae_decoder"}
    with pytest.raises(DipgoError, match="image: found a picture; expected none"):
        ours(image=np.zeros((3, HEIGHT, WIDTH)))


def _saved(picture: Image.Image, folder: Path) -> Path:
    picture.save(folder / "in.png")
    return folder / "in.png"


def test_the_scale_goes_evenly_from_frame_to_frame() -> None:
    denoiser = ZOO["svd"].build()
    least = {"min_guidance_scale": torch.tensor(1.0)}
    found = SVDFamily().spread_scale(denoiser, torch.tensor(3.0), least)
    assert torch.equal(found.flatten(), torch.linspace(1.0, 3.0, 3))
    assert found.shape == (3, 1, 1, 1)


def test_without_guidance_there_is_no_least_scale() -> None:
    inputs = SVDFamily().conditioning(ZOO["svd"].build(), Geometry(guidance=False))
    assert set(inputs) == {"encoder_hidden_states", "added_time_ids", "image_latents"}


def test_it_has_the_published_parameters() -> None:
    chosen = find_presets()["svd"]
    with torch.device("meta"):
        denoiser = getattr(diffusers, chosen.denoiser_class)(**chosen.denoiser_config)
    assert sum(one.numel() for one in denoiser.parameters()) == 1_524_623_082
