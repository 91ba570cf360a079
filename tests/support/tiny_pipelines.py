"""Pipelines of toy size with random weights: of several text encoders, of none, of T5."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.support.tiny_pipeline import (
    WIDTH,
    save_tiny_pipeline,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)

CLASSES = 1000
"""The label of no class in `DiTPipeline` is 1000, whatever the model says."""


CLASS_NAMES = {"7": "cock", "207": "golden retriever, retriever"}


def tiny_sdxl(folder: Path, *, zeros: bool = True) -> StableDiffusionXLPipeline:
    """Two CLIPs, each WIDTH wide; latents f32[B, 4, 16, 16]."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=(2, 4),
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection),
        tokenizer=tiny_tokenizer(folder / "vocabulary"),
        tokenizer_2=tiny_tokenizer(folder / "vocabulary_2"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
        force_zeros_for_empty_prompt=zeros,
    )


def tiny_sdxl_normalised(folder: Path) -> StableDiffusionXLPipeline:
    """Of a VAE whose latents have a mean and a deviation; no zeros for no negative prompt."""
    pipeline = tiny_sdxl(folder, zeros=False)
    mean_std = {"latents_mean": [0.3, -0.2, 0.1, 0.0], "latents_std": [2.0, 0.5, 1.5, 1.0]}
    pipeline.register_modules(vae=_vae_with(mean_std))
    return pipeline


def tiny_sd3(folder: Path, *, t5: bool = False) -> StableDiffusion3Pipeline:
    """Two CLIPs and, if asked for, T5; latents f32[B, 4, 16, 16]."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        caption_projection_dim=8,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
    )
    return StableDiffusion3Pipeline(
        vae=_vae_with({"shift_factor": 0.2}),
        text_encoder=tiny_text_encoder(CLIPTextModelWithProjection),
        text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection),
        text_encoder_3=tiny_t5(3 * WIDTH) if t5 else None,
        tokenizer=tiny_tokenizer(folder / "vocabulary"),
        tokenizer_2=tiny_tokenizer(folder / "vocabulary_2"),
        tokenizer_3=tiny_t5_tokenizer() if t5 else None,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _vae_with(more: dict[str, Any]) -> AutoencoderKL:
    """The tiny VAE with more in its configuration."""
    known = {key: one for key, one in tiny_vae().config.items() if not key.startswith("_")}
    vae: AutoencoderKL = AutoencoderKL.from_config({**known, **more})
    assert all(vae.config[key] == one for key, one in more.items())
    return vae.eval()


def tiny_dit(folder: Path) -> DiTPipeline:
    """Class-conditional; latents f32[B, 4, 16, 16]; two of the classes have names."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=16,
        num_embeds_ada_norm=CLASSES,
        norm_num_groups=2,
    )
    scheduler = DDIMScheduler(clip_sample=False)
    return DiTPipeline(transformer, tiny_vae(), scheduler)


def tiny_t5(width: int) -> T5EncoderModel:
    """An encoder of two layers over the vocabulary of `tiny_t5_tokenizer`."""
    config = T5Config(
        vocab_size=tiny_t5_tokenizer().vocab_size,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def tiny_t5_tokenizer() -> T5TokenizerFast:
    """T5's kind: unigrams, one a letter, with spaces marked, and an end token."""
    letters = ["▁", *map(chr, range(ord("!"), ord("~")))]
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = [*((one, 0.0) for one in special), *((one, -2.0) for one in letters)]
    backend = Tokenizer(Unigram(vocabulary, unk_id=2))
    backend.pre_tokenizer = Metaspace()
    backend.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(tokenizer_object=backend, extra_ids=0)


BUILDERS: dict[str, Callable[[Path], Any]] = {
    "sdxl": tiny_sdxl,
    "sdxl_normalised": tiny_sdxl_normalised,
    "sd3": tiny_sd3,
    "sd3_t5": lambda folder: tiny_sd3(folder, t5=True),
    "dit": tiny_dit,
}


def save_pipeline(name: str, folder: Path) -> Path:
    """Writes a pipeline of BUILDERS, or `sd`, to a directory as diffusers does."""
    path = folder / "pipeline"
    if name == "sd":
        return save_tiny_pipeline(path)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        pipeline = BUILDERS[name](folder)
    pipeline.save_pretrained(path)
    if name == "dit":
        _add_labels(path / "model_index.json")
    return path


def _add_labels(path: Path) -> None:
    """As published DiTs have them: diffusers reads names of classes, but does not write them."""
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"id2label": CLASS_NAMES}))
