"""Image-to-image: trajectories that start at a strength, against diffusers' own pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
)
from PIL import Image

from dipgo.common.errors import DipgoError
from dipgo.common.torch_noise import PictureNoise
from dipgo.compiler.request import silent
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.sampler.start import start_scheduler
from dipgo.export import export
from dipgo.export.dense_twin import export_dense_twin
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.sampler import PriorNoise
from dipgo.ir.subnet.subnet import GapFilters, SubNet
from dipgo.ir.subnet.truncate import cut_to
from dipgo.run.__main__ import main as run
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.eager import Gating
from tests.support.schedulers import NAMES, deviation, named, random_model, run_recurrence
from tests.support.tiny_pipeline import IMAGE_SIZE, save_tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers on numpy 2

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after some steps."""
SAMPLER_TOLERANCE = 1e-6
"""As in tests/compiler/sampler/test_probe.py: diffusers itself rounds to float32 at times."""
STEPS, STRENGTH, SCALE, PROMPT = 6, 0.7, 4.0, "a red circle"
LEFT = 4
"""Of STEPS, at STRENGTH: as the pipeline counts, int(6 · 0.7)."""
FLOW = {"flow-euler": FlowMatchEulerDiscreteScheduler(shift=3.0)}
SHARES = [(20, 0.3), (20, 0.76), (50, 0.5), (7, 1.0), (10, 0.19)]


def _run_diffusers(scheduler: Any, steps: int, strength: float) -> list[Any]:
    """The pipeline's own `get_timesteps`, then its loop."""
    flow = not hasattr(scheduler, "add_noise")
    pipeline = StableDiffusion3Img2ImgPipeline if flow else StableDiffusionImg2ImgPipeline
    state, model = random_model()
    scheduler.set_timesteps(steps)
    holder = SimpleNamespace(scheduler=scheduler)
    timesteps, _ = pipeline.get_timesteps(holder, steps, strength, "cpu")
    seen, latents = [], state
    for t in timesteps:
        has_scale = hasattr(scheduler, "scale_model_input")
        scaled = scheduler.scale_model_input(latents, t) if has_scale else latents
        seen.append(scaled.clone())
        latents = scheduler.step(model(scaled, float(t)), t, latents, return_dict=False)[0]
    return [*seen, latents]


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "strength"), SHARES)
@pytest.mark.parametrize("name", [*(one for one in NAMES if one != "pndm"), *FLOW])
def test_the_recurrence_starts_as_the_pipeline(name: str, steps: int, strength: float) -> None:
    """Whatever the scheduler's order, and for those that know no begin index."""
    scheduler = FLOW[name] if name in FLOW else named(name)
    found = run_recurrence(probe(scheduler, steps, strength=strength))
    wanted = _run_diffusers(scheduler, steps, strength)
    assert deviation(found, wanted) <= SAMPLER_TOLERANCE


@pytest.mark.parametrize("name", [*NAMES, *FLOW])
def test_the_first_state_is_a_sum(name: str) -> None:
    """a · picture + b · noise, as the scheduler adds noise where it begins."""
    scheduler = FLOW[name] if name in FLOW else named(name)
    flow = not hasattr(scheduler, "add_noise")
    pipeline = StableDiffusion3Img2ImgPipeline if flow else StableDiffusionImg2ImgPipeline
    start = start_scheduler(scheduler, 20, strength=0.6).start
    scheduler.set_timesteps(20)
    holder = SimpleNamespace(scheduler=scheduler)
    first = pipeline.get_timesteps(holder, 20, 0.6, "cpu")[0][:1]
    picture, noise = torch.randn(2, 1, 4, 8, 8)
    wanted = (
        scheduler.scale_noise(picture, first, noise)
        if flow
        else scheduler.add_noise(picture, noise, first)
    )
    found = start.image_scale * picture + start.noise_scale * noise
    assert relative_error(found, wanted) < SAMPLER_TOLERANCE


def test_draws_follow_one_another() -> None:
    generator, noise = torch.Generator("cpu").manual_seed(3), PictureNoise(3)
    for shape in [(1, 4, 5, 5), (2, 4, 5, 5), (3, 7)]:
        expected = torch.randn(shape, generator=generator).numpy()
        assert np.abs(noise.draw(shape) - expected).max() < 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("image") / "pipeline")


def _pipeline(folder: Path, scheduler: str) -> StableDiffusionImg2ImgPipeline:
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder)
    pipeline.scheduler = make_scheduler(pipeline.scheduler, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def _own_latents(
    pipeline: Any, prompts: int = 1, seed: int | list[int] = 5, **more: Any
) -> torch.Tensor:
    seeds = seed if isinstance(seed, list) else [seed]
    generators = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    latents: torch.Tensor = pipeline(
        [PROMPT] * prompts,
        image=_picture(),
        strength=STRENGTH,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=generators if isinstance(seed, list) else generators[0],
        output_type="latent",
        **more,
    ).images
    return latents


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("scheduler", "batch", "seed"),
    [
        ("ddim", 1, 5),
        ("euler", 2, 5),
        ("heun", 1, 5),
        ("euler-a", 2, 5),
        ("ddim", 2, [5, 7]),
        ("euler-a", 2, [5, 7]),
    ],
)
def test_the_same_seed_gives_the_pipelines_latents(
    folder: Path, scheduler: str, batch: int, seed: int | list[int], tmp_path: Path
) -> None:
    """From a PIL picture: encoded, sampled, noised and denoised. Two prompts share the picture."""
    expected = _own_latents(_pipeline(folder, scheduler), batch, seed)
    options = {"steps": STEPS, "scheduler": scheduler, "strength": STRENGTH, "batch": batch}
    out = export(folder, "dense", tmp_path / "out", **options)
    pipeline = Pipeline.from_export(out)
    found = pipeline(
        [PROMPT] * batch, image=_picture(), seed=seed, guidance_scale=SCALE, output_type="latent"
    ).images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE
    assert read_manifest(out).sampler.strength == STRENGTH
    with pytest.raises(DipgoError, match="image: found none for an export that starts from one"):
        pipeline(PROMPT)
    with pytest.raises(DipgoError, match=r"image: found 8 x 8 pixels; .* of 64 x 64 pixels"):
        pipeline(PROMPT, image=_picture().resize((8, 8)))
    pixels = np.asarray(_picture(), np.float32).transpose(2, 0, 1) / 127.5 - 1
    options = {"seed": seed, "guidance_scale": SCALE, "output_type": "latent"}
    arrays = pipeline([PROMPT] * batch, image=[pixels] if batch == 1 else pixels, **options).images
    assert np.abs(arrays - found).max() < 1e-4 * np.abs(found).max()
    with pytest.raises(DipgoError, match=r"image: found 3 pictures; expected one, or as many"):
        pipeline([PROMPT] * batch, image=[pixels] * 3)


@pytest.mark.slow
@torch.no_grad()
def test_a_subnet_is_cut_to_the_steps_that_are_left(folder: Path, tmp_path: Path) -> None:
    """Against the pipeline with its U-Net's modules hooked; the dense twin starts as late."""
    pipeline = _pipeline(folder, "ddim")
    timesteps = probe(pipeline.scheduler, STEPS).timesteps
    blocks = ("down_blocks.0", "mid_block", "up_blocks.1", "up_blocks.3")
    gates = np.ones((STEPS, len(blocks)), bool)
    gates[1, :2] = gates[3, :2] = gates[4, 1:] = False
    whole = SubNet(STEPS, timesteps, blocks, gates, ("output",) * len(blocks))
    left = cut_to(whole, timesteps[-LEFT:])
    assert (left.gates == gates[-LEFT:]).all()
    with Gating(pipeline.unet, left) as gating:

        def next_row(*_: Any, **__: Any) -> dict[str, Any]:
            gating.row = min(gating.row + 1, LEFT - 1)
            return {}

        expected = _own_latents(pipeline, callback_on_step_end=next_row)
    given = {"image": _picture(), "seed": 5, "guidance_scale": SCALE, "output_type": "latent"}
    for index, subnet in enumerate((whole, left)):
        out = export(folder, subnet, tmp_path / str(index), scheduler="ddim", strength=STRENGTH)
        found = Pipeline.from_export(out)(PROMPT, **given).images
        error = relative_error(torch.from_numpy(found), expected)
        print(f"relative error {error:.1e}")
        assert error < TOLERANCE
    _picture().save(tmp_path / "in.png")
    files = ["--from-image", str(tmp_path / "in.png"), "--latents", str(tmp_path / "out.npy")]
    run([str(out), "--prompt", PROMPT, "--seed", "5", "--guidance-scale", str(SCALE), *files])
    assert np.array_equal(np.load(tmp_path / "out.npy"), found)
    twin = export_dense_twin(out, str(folder), tmp_path / "twin", silent)
    assert len(read_manifest(twin).program.steps) == LEFT


def _subnet(**changes: Any) -> SubNet:
    gates = np.array([[1, 1], [0, 1], [1, 1], [1, 0]], bool)
    return replace(SubNet(4, (4, 3, 2, 1), ("a", "b"), gates, ("output",) * 2), **changes)


def test_a_subnet_whose_first_row_left_reuses_is_refused() -> None:
    pattern = r"strength, row 1 of the SubNet, block a: found 0; .* that is all 1: 0 2"
    with pytest.raises(DipgoError, match=pattern):
        cut_to(_subnet(), (3, 2, 1))
    assert cut_to(_subnet(), (2, 1)).gates.shape == (2, 2)
    identity = _subnet(backup=("identity", "output"))
    with pytest.raises(DipgoError, match=r"block a: found 0; expected 1: with this .* all 1, also"):
        cut_to(identity, (3, 2, 1))
    with pytest.raises(DipgoError, match="found a SubNet with prior_noise"):
        cut_to(_subnet(prior_noise=PriorNoise(0.003, 500)), (2, 1))


def test_filters_move_with_their_rows() -> None:
    """Those of gaps before the start fall away; the others keep their numbers."""
    gates = np.array([[1, 1], [0, 0], [1, 1], [0, 0], [0, 0], [1, 1]], bool)
    arrays = np.random.default_rng(0).normal(size=(2, 1, 4, 4, 3, 3))
    filters = (GapFilters((1,), arrays[0]), GapFilters((3, 4), arrays[1]))
    whole = SubNet(6, range(6, 0, -1), ("a", "b"), gates, ("output",) * 2, reuse_filters=filters)
    (found,) = cut_to(whole, (4, 3, 2, 1)).reuse_filters or ()
    assert found.rows == (1, 2)
    assert np.array_equal(found.predictions, filters[1].predictions)
    assert cut_to(whole, (1,)).reuse_filters is None


def test_filters_of_more_predictions_than_are_left_are_refused() -> None:
    gates = np.array([[1, 1], [1, 1], [0, 0]], bool)
    filters = (GapFilters((2,), np.ones((2, 4, 4, 3, 3))),)
    whole = SubNet(3, (3, 2, 1), ("a", "b"), gates, ("output",) * 2, reuse_filters=filters)
    with pytest.raises(
        DipgoError, match=r"^strength, reuse_filters.* of the rows from 1 on: found filters of 2"
    ):
        cut_to(whole, (2, 1))


@pytest.mark.parametrize(
    ("strength", "found"), [(0.0, "found 0;"), (1.2, "found 1.2"), (0.1, "0.1 of 4 steps")]
)
def test_strengths_that_leave_no_step(strength: float, found: str) -> None:
    with pytest.raises(DipgoError, match=f"^strength: .*{found}"):
        probe(named("ddim"), 4, strength=strength)


def test_a_picture_for_an_export_without_strength(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline.from_export(export(folder, "dense", tmp_path / "out", steps=1))
    with pytest.raises(DipgoError, match="image: found a picture; expected none"):
        pipeline(PROMPT, image=_picture())
