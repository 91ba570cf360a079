"""The pipeline's other parts: text encoder and VAE decoder as graphs, the tokenizer as a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from dipgo.graph import Dependence, Value
from dipgo.manifest import TokenizerRecord
from dipgo.models.family import Geometry
from dipgo.models.pipeline_parts import TextEncoder, VaeDecoder, VideoVaeDecoder
from dipgo.models.unet_inputs import EXTRAS
from dipgo.precision import FP32, Precision
from dipgo.torch_types import tensor_type
from dipgo.trace import trace

TOKENIZER_FILE = "tokenizer.json"
HIDDEN_STATES = "encoder_hidden_states"
VIDEO_AXES = 5
"""Latents f32[B, F, C, h, w] are those of a film."""


@dataclass(frozen=True)
class Part:
    """A graph to lower, with its example input; one input, one output."""

    name: str
    module: fx.GraphModule
    example: torch.Tensor
    input: Value
    output: Value
    precision: Precision
    exact: fx.GraphModule
    """The same graph with its weights in fp32, to be run by `dipgo.arithmetic.Exact`."""


def parts_of(
    pipeline: Any,
    geometry: Geometry,
    latents: torch.Tensor,
    conditioning: Collection[str],
    precision: Precision = FP32,
) -> Iterator[Part]:
    """What stands around the denoiser; `latents` is an example of the state.

    A text encoder only where its hidden states are all of the denoiser's `conditioning` that is
    of a text: those of Stable Diffusion XL and 3 are several encoders' together, and pooled ones
    beside them.
    What goes in and comes out is of the same types whatever the precision.
    """
    encoder = getattr(pipeline, "text_encoder", None)
    has_tokenizer = getattr(pipeline, "tokenizer", None) is not None
    if encoder is not None and has_tokenizer and set(conditioning) - EXTRAS == {HIDDEN_STATES}:
        yield _part(
            "text_encoder",
            TextEncoder(encoder),
            ("input_ids", torch.zeros(geometry.rows, geometry.tokens, dtype=torch.int64)),
            HIDDEN_STATES,
            precision,
        )
    vae = getattr(pipeline, "vae", None)
    if vae is not None:
        decoder = VideoVaeDecoder(vae) if latents.ndim == VIDEO_AXES else VaeDecoder(vae)
        yield _part("vae_decoder", decoder, ("latents", latents), "image", precision)


def _part(
    name: str,
    module: nn.Module,
    example: tuple[str, torch.Tensor],
    output: str,
    precision: Precision,
) -> Part:
    """Traced as a denoiser is, without blocks: what it is given counts as its state."""
    input_name, tensor = example
    typed = Precision(precision.name)  # modules to keep in fp32 are the denoiser's
    traced = trace(
        module.eval(),
        {input_name: tensor},
        {input_name: Dependence.STATE},
        (),
        model_class=type(module).__name__,
        config_sha256="",
        prefix=f"{module.wrapped}.",
        precision=typed,
    )
    result = traced.graph.output
    nodes = [node.name for node in traced.graph.nodes]
    return Part(
        name,
        traced.module(nodes, [input_name], [result]),
        tensor,
        Value(input_name, tensor_type(tensor)),
        Value(output, traced.graph.types[result]),
        typed,
        traced.module(nodes, [input_name], [result], exact=True),
    )


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
