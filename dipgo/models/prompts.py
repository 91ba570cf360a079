"""Encodes prompts as a denoiser's conditioning, by the pipeline's own text encoders."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from dipgo.common.cut_texts import warn_of_cuts
from dipgo.common.errors import DipgoError
from dipgo.models.family import Geometry
from dipgo.models.model import Source
from dipgo.models.registry import supported_pipelines
from dipgo.models.text_encoding import TextEncoding

CLASS_LABELS = "class_labels"


@torch.no_grad()
def encode_prompts(
    source: Source, prompts: Sequence[str], geometry: Geometry, negatives: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Returns the conditioning of one batch by the denoiser's argument names.

    Each value is f32 or i64 [rows, …], with guidance [unconditional, conditional].

    Args:
        source: The model, with its pipeline.
        prompts: A prompt a picture. A class-conditional model takes numbers or names of its
            classes; an unconditional model reads none, so they only count its pictures.
        geometry: Sizes of the batch.
        negatives: With guidance by texts a negative prompt for each picture; or none.

    Raises:
        DipgoError: The pipeline has no encoder for it, or a prompt names no class.
    """
    assert len(prompts) == geometry.batch, "one prompt a picture"
    model = source.at(geometry)
    names = set(model.conditioning)
    device = next(source.denoiser.parameters()).device
    if not names:
        return {}
    if names == {CLASS_LABELS}:
        return {CLASS_LABELS: _labels(source, prompts, geometry).to(device)}
    encoding = model.text_encoding
    encoded = {} if encoding is None else _encode(encoding, prompts, geometry, negatives)
    encoded |= model.fixed_rows()
    if not names <= set(encoded):
        raise _no_encoder(source, names)
    return {name: encoded[name].to(device) for name in names}


def _encode(
    encoding: TextEncoding, prompts: Sequence[str], geometry: Geometry, negatives: Sequence[str]
) -> dict[str, torch.Tensor]:
    unconditional = geometry.rows - geometry.batch
    for where, texts in (("prompt", prompts), ("negative_prompt", negatives)):
        for text in dict.fromkeys(texts):
            warn_of_cuts(where, text, (tokens.cut(text) for tokens in encoding.tokens))
    tokens = encoding.tokenize([*(negatives or [""] * unconditional), *prompts])
    device = next(encoding.module.parameters()).device
    results = encoding.module(*(tokens[name].to(device) for name in encoding.inputs))
    encoded = dict(zip(encoding.outputs, results, strict=True))
    if encoding.zeros_without_negative and not negatives:
        for tensor in encoded.values():
            tensor[:unconditional] = 0.0
    return tokens | encoded


def class_names(source: Source) -> dict[str, int]:
    """Returns the labels of the pipeline's classes by their names; empty where it names none."""
    names: dict[str, int] = getattr(source.pipeline, "labels", None) or {}
    return names


def _no_encoder(source: Source, names: Collection[str]) -> DipgoError:
    return DipgoError(
        f"model {source.name}",
        found=f"conditioning by {' '.join(sorted(names))}, which no available text encoder gives",
        expected=f"a pipeline with its tokenizers and text encoders: {supported_pipelines()}; "
        "or a class-conditional one",
        remedy="use one of these",
    )


def _labels(source: Source, prompts: Sequence[str], geometry: Geometry) -> torch.Tensor:
    """Returns labels i64[rows]; the unconditional rows carry the label after the last class."""
    classes = source.family.class_count(source.denoiser)
    labels = [_label(source, prompt.strip(), classes) for prompt in prompts]
    return torch.tensor([classes] * (geometry.rows - geometry.batch) + labels)


def _label(source: Source, prompt: str, classes: int) -> int:
    names = class_names(source)
    number = int(prompt) if prompt.isdecimal() else names.get(prompt)
    if number is None or not 0 <= number < classes:
        raise DipgoError(
            f"prompt {prompt!r}",
            found="no class of the model",
            expected=f"a number from 0 to {classes - 1}" + (", or a class's name" if names else ""),
            remedy="correct it",
        )
    return int(number)
