"""A family that a program brings: its denoiser, texts, preset and parts are exported as a whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dipgo.engines import load
from dipgo.engines.runner import Part
from dipgo.export import export
from dipgo.models import Family, Geometry, register_family
from dipgo.models.adapted import ARGUMENTS
from dipgo.models.family import PipelinePart
from dipgo.models.presets import Preset
from dipgo.models.registry import REGISTERED, find_family, find_presets
from dipgo.models.source import load_source
from dipgo.models.text_encoding import TextEncoding, Tokens
from tests.support.tiny_pipeline import WIDTH, tiny_text_encoder, tiny_tokenizer

TOLERANCE = 1e-5
"""Largest error, float32 kernels of another library, of pictures of about unit size."""
SIDE, SCALE, PROMPT = 8, 3.0, "a large red circle"


class Sketcher(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Takes a prompt, and a frame alike for all pictures."""

    @register_to_config
    def __init__(self, width: int = 8, text_width: int = WIDTH) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.text = nn.Linear(text_width + 2, width)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, picture: Tensor, timestep: Tensor, prompt: Tensor, frame: Tensor) -> Tensor:
        hint = self.text(torch.cat([prompt.mean(1), frame], dim=1))[:, :, None, None]
        hidden = self.enter(picture) + timestep / 1000 * hint
        for block in self.blocks:
            hidden = hidden + block(nn.functional.silu(hidden))
        sketch: Tensor = self.leave(hidden)
        return sketch


class SketcherPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Names its text encoder as no built-in family does."""

    def __init__(self, unet: Any, scheduler: Any, reader: Any, tokenizer: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, reader=reader, tokenizer=tokenizer)


class Reader(nn.Module):
    """Ids i64[rows, tokens] to hidden states f32[rows, tokens, width]."""

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(ids)[0],)


class Varnish(nn.Module):
    """A part of no built-in family: latents to pictures in [0, 1]."""

    wrapped = "mixing"

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Conv2d(3, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        picture: Tensor = self.mixing(latents).sigmoid()
        return picture


class SketcherFamily(Family):
    denoisers = "Sketcher"
    default_blocks = ("blocks.*",)
    pipelines = ("SketcherPipeline",)
    presets = {  # noqa: RUF012 - as a program may write it
        "sketcher": Preset(
            Sketcher, {"width": 4}, "DDIMScheduler", {"clip_sample": False}, tokens=5
        )
    }

    def __init__(self) -> None:
        self.varnish = Varnish().eval()

    def fits(self, denoiser: Any) -> bool:
        return type(denoiser).__name__ == self.denoisers

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        return (geometry.batch, 3, *geometry.in_latents((SIDE, SIDE)))

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, Tensor]:
        width = denoiser.config.text_width
        prompt = torch.zeros(geometry.rows, geometry.tokens, width)
        return {"prompt": prompt, "frame": torch.zeros(geometry.rows, 2)}

    def predict(self, denoiser: Any, latents: Tensor, timestep: Tensor, conditioning: Any) -> Any:
        return denoiser(latents, timestep, **conditioning)

    def text_encoding(self, pipeline: Any, tokens: int) -> TextEncoding | None:
        return TextEncoding(
            Reader(pipeline.reader), (Tokens(pipeline.tokenizer, "ids", tokens),), ("prompt",)
        )

    def fixed_conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, list[float]]:
        return {"frame": [0.5, -1.0]}

    def parts(self, pipeline: Any, latents: Tensor, geometry: Geometry) -> Iterator[PipelinePart]:
        yield PipelinePart("varnish", self.varnish, {"latents": latents}, ("picture",))


@pytest.fixture
def family() -> Iterator[SketcherFamily]:
    before = list(REGISTERED)
    torch.manual_seed(0)
    made = SketcherFamily()
    register_family(made)
    register_family(made)
    assert [made, *before] == REGISTERED
    yield made
    REGISTERED[:] = before


@pytest.mark.slow
@torch.no_grad()
def test_a_pipeline_is_exported_with_its_texts_and_parts(
    family: SketcherFamily, tmp_path: Path
) -> None:
    from dipgo import Pipeline

    scheduler = DDIMScheduler(clip_sample=False)
    reader, tokenizer = tiny_text_encoder(), tiny_tokenizer(tmp_path / "vocabulary")
    pipeline = SketcherPipeline(Sketcher(), scheduler, reader, tokenizer)
    out = export(pipeline, "dense", tmp_path / "out", steps=3, precision="fp16")
    runner = load(out)
    assert set(runner.export.manifest.parts) == {"text_encoder", "varnish"}
    assert runner.export.manifest.numerics.keys() >= {"text_encoder", "varnish"}

    out = export(pipeline, "dense", tmp_path / "out", steps=3, force=True)
    runner, noise = load(out), torch.randn(1, 3, SIDE, SIDE)
    options = {"latents": noise.numpy(), "guidance_scale": SCALE, "output_type": "latent"}
    latents = Pipeline.from_export(out)(PROMPT, **options).images
    length = tokenizer.model_max_length
    ids = Tokens(tokenizer, "ids", length).encode(["", PROMPT])["ids"]
    prompt, frame = reader(ids)[0], torch.tensor([[0.5, -1.0]] * 2)
    scheduler.set_timesteps(3)
    expected = noise
    for timestep in scheduler.timesteps:
        free, bound = pipeline.unet(torch.cat([expected] * 2), timestep, prompt, frame).chunk(2)
        expected = scheduler.step(free + SCALE * (bound - free), timestep, expected).prev_sample
    assert np.abs(latents - expected.numpy()).max() < TOLERANCE * expected.abs().max()
    picture = Part(runner, "varnish")({"latents": latents})["picture"]
    assert np.abs(picture - family.varnish(expected).numpy()).max() < 10 * TOLERANCE


@pytest.mark.usefixtures("family")
def test_its_preset_is_one_of_all(tmp_path: Path) -> None:
    assert next(iter(find_presets())) == "sketcher"
    source = load_source("arch:sketcher")
    assert (source.model_class, source.tokens) == ("Sketcher", 5)
    runner = load(export("arch:sketcher", "dense", tmp_path / "out", steps=2))
    assert runner.inputs["prompt"].shape == (2, 5, WIDTH)


def test_each_thing_is_worked_out_once(family: SketcherFamily, tmp_path: Path) -> None:
    """However often an export asks for the text encoding of a geometry."""
    tokenizer = tiny_tokenizer(tmp_path / "vocabulary")
    pipeline = SketcherPipeline(Sketcher(), DDIMScheduler(), tiny_text_encoder(), tokenizer)
    source = load_source(pipeline)
    geometry = source.geometry(batch=2)
    assert source.at(geometry).text_encoding is source.at(source.geometry(batch=2)).text_encoding
    assert source.at(source.geometry()).latent_shape == (1, 3, SIDE, SIDE)
    assert source.at(geometry).latent_shape == (2, 3, SIDE, SIDE)


class _Plain:
    """An adapter as those of 0.1 are: of no base class, its methods take the scale."""

    denoisers = "Linear"
    default_blocks = ()
    guided = False

    def fits(self, denoiser: Any) -> bool:
        return isinstance(denoiser, nn.Linear)

    def latent_shape(self, denoiser: Any, geometry: Geometry, scale: int) -> tuple[int, ...]:
        return (geometry.batch, geometry.height // scale)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, Tensor]:
        return {}

    def predict(self, denoiser: Any, latents: Tensor, timestep: Tensor, conditioning: Any) -> Any:
        return denoiser(latents)

    def at_size(self, denoiser: Any, geometry: Geometry, scale: int) -> _Plain:
        return self

    def timestep_options(
        self, denoiser: Any, scheduler: Any, geometry: Geometry, scale: int, steps: int
    ) -> dict[str, Any]:
        return {"scale": scale, "steps": steps}


@pytest.mark.usefixtures("family")
def test_an_adapter_of_the_first_release_is_completed() -> None:
    """By the scale of the geometry, and the defaults of what it lacks."""
    plain = _Plain()
    register_family(plain)
    register_family(plain)
    found, geometry = find_family(nn.Linear(1, 1)), Geometry(height=64, pixels_per_latent=4)
    assert len(REGISTERED) == 2
    for adapter in (found, found.at_size(None, geometry)):
        assert adapter.latent_shape(None, geometry) == (1, 16)
        assert adapter.timestep_options(None, None, geometry, 7) == {"scale": 4, "steps": 7}
        assert (adapter.denoisers, adapter.guided, adapter.pipelines) == ("Linear", False, ())
        assert adapter.text_encoding(SimpleNamespace(), 7) is None
    assert all(hasattr(Family, name) for name in ARGUMENTS)


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, dipgo.models, dipgo.models.registry; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
