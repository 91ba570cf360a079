"""Drawn U-Nets and VAEs under a SubNet, against diffusers' own pipelines with hooked modules."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.probe import probe
from dipgo.export import export
from dipgo.ir.block_patterns import match_blocks
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.drawn_models import (
    TOKENS,
    WIDTH,
    draw_picture_to_picture,
    draw_unconditional,
    unconditional,
)
from tests.support.eager import Gating
from tests.support.rare import rare_unless

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers on numpy 2

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after some steps."""
STEPS, STRENGTH, SCALE, SEED = 4, 0.8, 3.0, 5
DRAWS = 30


def _subnet(pipeline: Any, draw: random.Random, first: int = 0) -> SubNet:
    """Random gates of the default blocks; all are on at the first step that is run."""
    timesteps = probe(pipeline.scheduler, STEPS).timesteps
    blocks = match_blocks(pipeline.unet, load_source(pipeline).default_blocks)
    gates = np.array([[draw.random() < 0.5 for _ in blocks] for _ in timesteps])
    gates[: first + 1] = True
    return SubNet(STEPS, timesteps, blocks, gates, ("output",) * len(blocks))


def _run_gated(pipeline: Any, subnet: SubNet, first: int, **call: Any) -> Any:
    """The pipeline's own call; each call of its U-Net is at the next row."""
    with Gating(pipeline.unet, subnet) as gating:
        gating.row = first - 1

        def next_row(*_: Any) -> None:
            gating.row += 1

        hook = pipeline.unet.register_forward_pre_hook(next_row)
        try:
            generator = torch.Generator("cpu").manual_seed(SEED)
            return pipeline(num_inference_steps=STEPS, generator=generator, **call).images
        finally:
            hook.remove()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("seed", rare_unless(lambda seed: seed < 3, range(DRAWS)))
def test_pictures_without_prompts(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    pipeline = draw_unconditional(draw)
    subnet = _subnet(pipeline, draw)
    size = {}
    if pipeline.unet.config.sample_size is None:
        with pytest.raises(DipgoError, match=r"^height: found no size, for a model whose config"):
            export(pipeline, subnet, tmp_path / "out")
        size = {"height": 8, "width": 16}
    out = export(pipeline, subnet, tmp_path / "out", **size)
    if size:  # which the pipeline itself cannot do without
        pipeline.unet.register_to_config(sample_size=(8, 16))
    expected = _run_gated(pipeline, subnet, 0, output_type="np")
    found = Pipeline.from_export(out, threads=1)(seed=SEED, output_type="np").images
    assert relative_error(torch.from_numpy(found), torch.from_numpy(expected)) < TOLERANCE


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("seed", rare_unless(lambda seed: seed < 4, range(DRAWS)))
def test_pictures_from_pictures(seed: int, tmp_path: Path) -> None:
    """Of a VAE whose latents are drawn, or are none: then nothing is drawn before the noise."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    pipeline = draw_picture_to_picture(draw)
    first = STEPS - int(STEPS * STRENGTH)
    subnet = _subnet(pipeline, draw, first)
    size = {} if pipeline.unet.config.sample_size else {"height": 16, "width": 16}
    prompts = torch.randn(2, TOKENS, WIDTH)
    pixels = torch.rand(1, 3, 16, 16)
    call = {
        "image": pixels,
        "strength": STRENGTH,
        "guidance_scale": SCALE,
        "negative_prompt_embeds": prompts[:1],
        "prompt_embeds": prompts[1:],
        "output_type": "np",
    }
    expected = _run_gated(pipeline, subnet, first, **call)
    out = export(pipeline, subnet, tmp_path / "out", strength=STRENGTH, **size)
    found = Pipeline.from_export(out, threads=1)(
        image=2 * pixels[0].numpy() - 1,
        seed=SEED,
        guidance_scale=SCALE,
        inputs={"encoder_hidden_states": prompts.numpy()},
        output_type="np",
    ).images
    assert relative_error(torch.from_numpy(found), torch.from_numpy(expected)) < TOLERANCE


@pytest.mark.parametrize(("channels", "predicted"), [(6, 3), (2, 1), (4, 3)])
def test_predictions_of_another_shape_are_refused(
    channels: int, predicted: int, tmp_path: Path
) -> None:
    pipeline = unconditional(in_channels=channels, out_channels=predicted)
    message = f"found a prediction of {predicted} channels for latents of {channels};"
    with pytest.raises(DipgoError, match=message):
        export(pipeline, "dense", tmp_path / "out", steps=2)


def test_a_size_that_the_model_cannot_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"^model UNet2DModel: found RuntimeError: Sizes of te"):
        export(unconditional(sample_size=9), "dense", tmp_path / "out", steps=2)
