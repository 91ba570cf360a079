"""Writes the pipeline in the layout of Stable Diffusion."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from scripts.demo_model.build_tokenizer import write_fast_tokenizer
from scripts.demo_model.networks import Denoiser, build_scheduler


def save_pipeline(out: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, model: Denoiser) -> None:
    """Write a float16 Stable Diffusion pipeline, replacing `out` by renaming."""
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(),
        text_encoder=copy.deepcopy(model.text_encoder).half(),
        tokenizer=tokenizer,
        unet=copy.deepcopy(model.unet).half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    new, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    pipeline.save_pretrained(new)
    write_fast_tokenizer(tokenizer, new / "tokenizer")
    remove_local_paths(new)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def remove_local_paths(folder: Path) -> None:
    """Delete `_name_or_path` from every config, for it may name a folder of this machine."""
    for file in folder.rglob("*.json"):
        config = json.loads(file.read_text())
        if config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n")
