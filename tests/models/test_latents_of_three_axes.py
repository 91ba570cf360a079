"""Latents of three axes are packed pictures only where the family says so."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dipgo.export import export
from dipgo.ir.manifest.file import read_manifest
from dipgo.models import Family, Geometry, register_family
from dipgo.models.registry import REGISTERED
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error

TOLERANCE = 1e-5
STEPS, SEED = 3, 4


class Melody(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts the noise of f32[B, length, width]."""

    @register_to_config
    def __init__(self, length: int = 7, width: int = 5) -> None:
        super().__init__()
        self.along = nn.Linear(length, length)
        self.across = nn.Linear(width, width)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return x + self.across(self.along(x.mT).mT) * (1 + timestep / 1000)


class MelodyFamily(Family):
    denoisers = "Melody"
    default_blocks = ("across",)
    guided = False

    def fits(self, denoiser: Any) -> bool:
        return type(denoiser) is Melody

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        return (geometry.batch, denoiser.config.length, denoiser.config.width)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, Tensor]:
        return {}

    def predict(
        self, denoiser: Any, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        prediction: Tensor = denoiser(latents, timestep)
        return prediction


class MelodyPipeline(DiffusionPipeline):  # type: ignore[misc]
    def __init__(self, unet: Melody, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    before = list(REGISTERED)
    register_family(MelodyFamily())
    yield
    REGISTERED[:] = before


@torch.no_grad()
@pytest.mark.parametrize(("length", "width"), [(7, 5), (16, 8), (6, 16)])
def test_latents_that_are_no_picture(length: int, width: int, tmp_path: Path) -> None:
    """Also of the shape of packed ones: the noise is drawn as it is, not as that of pictures."""
    torch.manual_seed(0)
    pipeline = MelodyPipeline(Melody(length, width), DDIMScheduler(clip_sample=False))
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS)
    record = read_manifest(out).pipeline
    assert record is not None
    assert record.packed is None
    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator("cpu").manual_seed(SEED)
    latents = torch.randn(1, length, width, generator=generator)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(pipeline.unet(latents, timestep), timestep, latents).prev_sample
    found = Pipeline.from_export(out, threads=1)(seed=SEED, output_type="latent").images
    assert relative_error(torch.from_numpy(found), latents) < TOLERANCE
