"""The pipeline's other parts: text encoder and VAE decoder as graphs, the tokenizer as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dipgo.graph import Value
from dipgo.manifest import TokenizerRecord
from dipgo.models.family import Geometry
from dipgo.torch_types import tensor_type

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Part:
    """A module to lower, with its example input; one input, one output."""

    name: str
    module: nn.Module
    input_name: str
    example: torch.Tensor
    output: Value

    @property
    def input(self) -> Value:
        """The input with its type."""
        return Value(self.input_name, tensor_type(self.example))


class TextEncoder(nn.Module):
    """Token ids i64[rows, tokens] to hidden states f32[rows, tokens, width]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The last hidden state, as `StableDiffusionPipeline.encode_prompt` takes it."""
        hidden: torch.Tensor = self.encoder(input_ids)[0]
        return hidden


class VaeDecoder(nn.Module):
    """Latents f32[B, C, h, w] to a picture f32[B, 3, H, W] in [-1, 1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = vae.config.scaling_factor
        self.shift = getattr(vae.config, "shift_factor", None) or 0.0

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Undoes the latents' scaling, as diffusers' pipelines do, and decodes."""
        picture: torch.Tensor = self.vae.decode(
            latents / self.scale + self.shift, return_dict=False
        )[0]
        return picture


def parts_of(pipeline: Any, geometry: Geometry, latents: torch.Tensor) -> Iterator[Part]:
    """What stands around the denoiser; `latents` is an example of the state."""
    encoder = getattr(pipeline, "text_encoder", None)
    if encoder is not None and getattr(pipeline, "tokenizer", None) is not None:
        yield _part(
            "text_encoder",
            TextEncoder(encoder),
            ("input_ids", torch.zeros(geometry.rows, geometry.tokens, dtype=torch.int64)),
            "encoder_hidden_states",
        )
    vae = getattr(pipeline, "vae", None)
    if vae is not None:
        yield _part("vae_decoder", VaeDecoder(vae), ("latents", latents), "image")


@torch.no_grad()
def _part(name: str, module: nn.Module, example: tuple[str, torch.Tensor], output: str) -> Part:
    input_name, tensor = example
    result = module.eval()(tensor)
    return Part(name, module, input_name, tensor, Value(output, tensor_type(result)))


def save_tokenizer(pipeline: Any, directory: Path) -> TokenizerRecord | None:
    """Writes the tokenizer in the form of the `tokenizers` library: no transformers needed."""
    tokenizer = getattr(pipeline, "tokenizer", None)
    if tokenizer is None:
        return None
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
    else:
        from transformers.convert_slow_tokenizer import convert_slow_tokenizer

        backend = convert_slow_tokenizer(tokenizer)
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(directory / TOKENIZER_FILE))
    return TokenizerRecord(TOKENIZER_FILE, tokenizer.model_max_length, tokenizer.pad_token_id)
