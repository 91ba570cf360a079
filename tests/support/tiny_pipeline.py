"""A Stable Diffusion pipeline of toy size with random weights: every part, no download."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedModel

SEED = 0
WIDTH = 32
TOKENS = 16
IMAGE_SIZE = 64
SMALLER_SIZE = 32
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")


def save_tiny_pipeline(path: Path) -> Path:
    """Writes the pipeline as diffusers does; the same weights at every call.

    Latents f32[B, 4, 16, 16], prompt i64[rows, 16], pictures 64 x 64.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        unet, vae, text_encoder = _unet(), tiny_vae(), tiny_text_encoder()
    pipeline = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tiny_tokenizer(path.with_name(f"{path.name}-vocabulary")),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path)
    return path


def save_smaller_pipeline(tiny_pipeline: Path, folder: Path) -> None:
    """The tiny pipeline with a smaller U-Net and VAE: pictures of 32 x 32, quicker exports."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 32),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            norm_num_groups=8,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            sample_size=SMALLER_SIZE,
        )
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_pipeline, unet=unet, vae=vae, safety_checker=None
    )
    pipeline.save_pretrained(folder)


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
        attention_head_dim=4,
    )


def tiny_vae() -> AutoencoderKL:
    """Four pixels a latent pixel, four channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 32),
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
    )


def tiny_text_encoder(kind: type[PreTrainedModel] = CLIPTextModel) -> PreTrainedModel:
    """Of one of CLIP's classes; hidden states and projection are WIDTH wide."""
    end = len(_vocabulary()) - 1
    return kind(
        CLIPTextConfig(
            vocab_size=len(_vocabulary()),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def tiny_tokenizer(directory: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with one token a byte and no merges."""
    directory.mkdir()
    (directory / "vocab.json").write_text(json.dumps(_vocabulary()))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(directory / "vocab.json"), str(directory / "merges.txt"), model_max_length=TOKENS
    )


def _vocabulary() -> dict[str, int]:
    """Every byte, every byte at the end of a word, and the two special tokens."""
    letters = sorted(ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), *SPECIAL_TOKENS]
    return {name: index for index, name in enumerate(names)}


def _scheduler() -> PNDMScheduler:
    """As Stable Diffusion 1.5 has it, with what DDIM needs to know (`clip_sample`)."""
    config = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
    scheduler: PNDMScheduler = PNDMScheduler.from_config(config)
    return scheduler
