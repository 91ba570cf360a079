"""The pipeline's other parts: text encoders and VAE decoder as graphs, tokenizers as files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.dtypes import tensor_type
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.trace import trace
from dipgo.ir.graph import Dependence
from dipgo.ir.manifest.records import TokenizerRecord
from dipgo.ir.types import Value
from dipgo.models.families.svd import IMAGE_LATENTS, FrameEncoder, FrameVaeEncoder, takes_frames
from dipgo.models.family import Geometry
from dipgo.models.registry import find_text_encoding
from dipgo.models.text_encoding import TextEncoding, Tokens
from dipgo.models.vae import PackedVaeDecoder, VaeDecoder, VaeEncoder, VideoVaeDecoder

TEXT_ENCODER, IMAGE_ENCODER = "text_encoder", "image_encoder"

VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"

PrecisionOf: TypeAlias = Callable[[str], Precision]

VIDEO_AXES = 5
"""Latents f32[B, F, C, h, w] are those of a film."""


@dataclass(frozen=True)
class Part:
    """A graph to lower, with an example of each of its inputs."""

    name: str
    module: fx.GraphModule
    examples: tuple[torch.Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    precision: Precision
    exact: fx.GraphModule
    """The same graph with its weights in fp32, to be run by `dipgo.compiler.oracle.Exact`."""


def parts_of(
    pipeline: Any,
    geometry: Geometry,
    latents: torch.Tensor,
    conditioning: Collection[str],
    precision_of: PrecisionOf = lambda name: FP32,
    *,
    from_image: bool = False,
) -> Iterator[Part]:
    """What stands around the denoiser; `latents` is an example of the state.

    A text encoder only where its outputs are the denoiser's `conditioning`, a VAE encoder only
    where a run is given pictures: `from_image`. A video's picture has encoders of its own.
    `precision_of` tells by a part's name in what it computes; what goes in and comes out is of the
    same types whatever that is.
    """
    encoding = find_text_encoding(pipeline, geometry.tokens)
    if encoding is not None and set(encoding.outputs) <= set(conditioning):
        yield _part(
            TEXT_ENCODER,
            encoding.module,
            _example_tokens(encoding, geometry.rows),
            encoding.outputs,
            precision_of(TEXT_ENCODER),
        )
    vae = getattr(pipeline, "vae", None)
    if vae is not None and IMAGE_LATENTS in conditioning and takes_frames(pipeline):
        yield from _frame_encoders(pipeline, _picture(vae, latents), precision_of)
    if vae is not None and from_image:
        yield _part(
            VAE_ENCODER,
            VaeEncoder(vae),
            {"image": _picture(vae, latents)},
            ("posterior",),
            precision_of(VAE_ENCODER),
        )
    if vae is not None:
        decoder = _decoder(vae, latents, geometry)
        yield _part(
            VAE_DECODER, decoder, {"latents": latents}, ("image",), precision_of(VAE_DECODER)
        )


def _frame_encoders(
    pipeline: Any, picture: torch.Tensor, precision_of: PrecisionOf
) -> Iterator[Part]:
    """Of what a video begins with."""
    size = picture.shape[-2:]
    clip = FrameEncoder(pipeline.image_encoder, pipeline.feature_extractor, *size)
    given = {"image": picture}
    named = precision_of(IMAGE_ENCODER), precision_of(VAE_ENCODER)
    yield _part(IMAGE_ENCODER, clip, given, ("frame_embedding",), named[0])
    yield _part(VAE_ENCODER, FrameVaeEncoder(pipeline.vae), given, ("mode",), named[1])


def _decoder(vae: Any, latents: torch.Tensor, geometry: Geometry) -> VaeDecoder:
    if latents.ndim == VIDEO_AXES:
        return VideoVaeDecoder(vae)
    grid = packed_grid(tuple(latents.shape), geometry)
    return VaeDecoder(vae) if grid is None else PackedVaeDecoder(vae, *grid)


def packed_grid(shape: tuple[int, ...], geometry: Geometry) -> tuple[int, int] | None:
    """Rows and columns of latents packed as f32[B, rows * columns, C]; None of others.

    Unless pixels are asked for the picture is a square.
    """
    if len(shape) != 3:
        return None
    height, width = geometry.height or 1, geometry.width or 1
    rows = isqrt(shape[1] * height // width)
    assert rows * (shape[1] // rows) == shape[1], "no whole rows"
    return rows, shape[1] // rows


def _example_tokens(encoding: TextEncoding, rows: int) -> dict[str, torch.Tensor]:
    """An empty text in each row: a mask of zeros would leave nothing to attend to."""
    return encoding.tokenize([""] * rows)


def _picture(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """An example of what has latents of this size: every level but the first halves it."""
    batch, *_, height, width = latents.shape
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    return torch.zeros(batch, vae.config.in_channels, height * scale, width * scale)


def _part(
    name: str,
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    outputs: tuple[str, ...],
    precision: Precision,
) -> Part:
    """Traced as a denoiser is, without blocks: what it is given counts as its state.

    A second output is to a trace what the unconditional half is of a denoiser's.
    """
    typed = Precision(precision.name)  # modules to keep in fp32 are the denoiser's
    traced = trace(
        module.eval(),
        examples,
        dict.fromkeys(examples, Dependence.STATE),
        (),
        model_class=type(module).__name__,
        config_sha256="",
        prefix=f"{module.wrapped}.",
        precision=typed,
    )
    graph = traced.graph
    results = [one for one in (graph.output, graph.unconditional) if one is not None]
    nodes = [node.name for node in graph.nodes]
    return Part(
        name,
        traced.module(nodes, list(examples), results),
        tuple(examples.values()),
        tuple(Value(one, tensor_type(tensor)) for one, tensor in examples.items()),
        tuple(
            Value(one, graph.types[result]) for one, result in zip(outputs, results, strict=True)
        ),
        typed,
        traced.module(nodes, list(examples), results, exact=True),
    )


def save_tokenizers(encoding: TextEncoding, directory: Path) -> list[TokenizerRecord]:
    """Writes the tokenizers in the form of the `tokenizers` library: no transformers needed."""
    return [
        _save_tokenizer(tokens, directory / f"tokenizer{f'_{index}' if index > 1 else ''}.json")
        for index, tokens in enumerate(encoding.tokens, start=1)
    ]


def _save_tokenizer(tokens: Tokens, path: Path) -> TokenizerRecord:
    tokenizer = tokens.tokenizer
    backend = tokenizer.backend_tokenizer if tokenizer.is_fast else _converted(tokenizer)
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(path))
    return TokenizerRecord(
        file=path.name,
        ids=tokens.ids,
        mask=tokens.mask,
        length=tokens.length,
        pad_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
        lower=tokens.lower,
    )


def _converted(tokenizer: Any) -> Any:
    """Of a tokenizer in Python. T5's needs a package that reads its file."""
    from transformers.convert_slow_tokenizer import convert_slow_tokenizer

    try:
        return convert_slow_tokenizer(tokenizer)
    except ImportError as error:
        raise DipgoError(
            f"tokenizer {type(tokenizer).__name__}",
            found=str(error).strip().splitlines()[0],
            expected="the packages that convert it for the tokenizers library",
            remedy="pip install sentencepiece protobuf, or save the pipeline with a fast tokenizer",
        ) from error
