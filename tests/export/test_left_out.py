"""Decoders of other names, and what an export is without: said in a line and in the manifest."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel, VQModel
from torch import nn

from dipgo.common.warn import DipgoWarning
from dipgo.export import export
from dipgo.ir.manifest.file import read_manifest
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline

TOLERANCE = 1e-5
"""Of pictures in [0, 1], float32 kernels of another library."""


def _pipeline() -> Any:
    """Latents f32[B, 3, 8, 8], pictures of 32 x 32 pixels; the decoder is called `vqvae`."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        decoder = VQModel(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            num_vq_embeddings=32,
            norm_num_groups=4,
        )
        unet = UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 12),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=None,
        )
    pipeline = LDMPipeline(decoder, unet, DDIMScheduler(clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "TCDScheduler", "PNDMScheduler", "EulerDiscreteScheduler"]
)
def test_latents_without_a_prompt(name: str, tmp_path: Path) -> None:
    """`LDMPipeline` scales noise and input, and its eta is 0.

    Failed at e6859a8 for TCD and PNDM, and Euler was said to differ.
    """
    pipeline = _pipeline()
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    pipeline.scheduler = getattr(diffusers, name)(**options)
    if "clip_sample" in pipeline.scheduler.config:
        pipeline.scheduler.register_to_config(clip_sample=False)
    expected = pipeline(
        num_inference_steps=3, generator=torch.Generator().manual_seed(5), output_type="np"
    ).images
    with warnings.catch_warnings():
        warnings.simplefilter("error", DipgoWarning)
        out = export(pipeline, "dense", tmp_path / "out", steps=3)
    found = Pipeline.from_export(out)(seed=5, output_type="np").images
    assert np.abs(found - expected).max() < TOLERANCE


@pytest.mark.slow
def test_a_decoder_of_another_name_and_parts_that_are_left_out(tmp_path: Path) -> None:
    """Failed at 21ce821: the latents were given out as the picture, and nothing was said."""
    pipeline = _pipeline()
    expected = pipeline(
        num_inference_steps=3, generator=torch.Generator().manual_seed(5), output_type="np"
    ).images
    assert load_source(pipeline).pixels_per_latent == 4
    plain = export(pipeline, "dense", tmp_path / "plain", steps=3)
    found = Pipeline.from_export(plain)(seed=5, output_type="np").images
    assert found.shape == expected.shape == (1, 32, 32, 3)
    assert np.abs(found - expected).max() < TOLERANCE
    assert b"left_out" not in (plain / "plan.json").read_bytes()
    pipeline.register_modules(safety_checker=nn.Linear(1, 1), critic=nn.Linear(1, 1))
    with pytest.warns(DipgoWarning, match="the safety_checker of LDMPipeline is not in the export"):
        out = export(pipeline, "dense", tmp_path / "out", steps=3)
    record = read_manifest(out).pipeline
    assert record is not None
    assert record.left_out == {
        "safety_checker": "pictures of an export are not checked",
        "critic": "nothing in it reads this",
    }
