"""Exports of further families' pipelines against these pipelines, run by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from dipgo.engines import load
from dipgo.export import export
from tests.test_parity import relative_error
from tests.tiny_pipeline import WIDTH, tiny_text_encoder, tiny_tokenizer, tiny_vae

TOLERANCE = 1e-5
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, PROMPT = 4, 4.0, "a large red circle"


def run_export(path: Path, noise: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Latents of an export, of unit noise."""
    runner = load(path)
    sigma = np.float32(runner.export.manifest.sampler.init_noise_sigma)
    given = {key: one.numpy() if torch.is_tensor(one) else one for key, one in inputs.items()}
    return torch.from_numpy(runner.run({"latents": noise.numpy() * sigma, **given})["latents"])


@torch.no_grad()
def test_stable_diffusion_2(tmp_path: Path) -> None:
    """Linear projections, a head width a level, and a predicted velocity."""
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(tmp_path / "vocabulary"),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=(2, 4),
            cross_attention_dim=WIDTH,
            use_linear_projection=True,
            upcast_attention=True,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16)
    out = export(pipeline, "dense", tmp_path / "out", steps=STEPS)
    hidden, no_hidden = pipeline.encode_prompt(PROMPT, None, 1, True)
    hidden = torch.cat([no_hidden, hidden])
    found = run_export(out, noise, encoder_hidden_states=hidden, guidance_scale=SCALE)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    error = relative_error(found, pipeline(PROMPT, latents=noise, **options).images)
    print(f"Stable Diffusion 2: relative L2 {error:.1e}")
    assert error < TOLERANCE
