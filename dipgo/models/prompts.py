"""Prompts become a denoiser's conditioning, by the pipeline's own text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dipgo.errors import DipgoError
from dipgo.models.family import Geometry
from dipgo.models.source import Source

HIDDEN_STATES = "encoder_hidden_states"
CLASS_LABELS = "class_labels"


@torch.no_grad()
def encode_prompts(
    source: Source, prompts: Sequence[str], geometry: Geometry
) -> dict[str, torch.Tensor]:
    """The conditioning of one batch by the denoiser's argument names, f32 or i64 [rows, …].

    With guidance [unconditional, conditional], the former of an empty prompt. A class-conditional
    model takes numbers or names of its classes, and an unconditional one nothing: prompts count
    its pictures. Raises DipgoError where the pipeline cannot.
    """
    assert len(prompts) == geometry.batch, "one prompt a picture"
    names = set(source.family.conditioning(source.denoiser, geometry))
    device = next(source.denoiser.parameters()).device
    if not names:
        return {}
    if names == {CLASS_LABELS}:
        return {CLASS_LABELS: _labels(source, prompts, geometry).to(device)}
    pipeline = source.pipeline
    has_encoder = getattr(pipeline, "text_encoder", None) and getattr(pipeline, "tokenizer", None)
    if names != {HIDDEN_STATES} or not has_encoder:
        raise DipgoError(
            f"model {source.name}",
            found=f"conditioning by {' '.join(sorted(names))}, not by one text encoder",
            expected="a pipeline with tokenizer and text encoder, or a class-conditional one",
            remedy="use a Stable Diffusion 1 or 2 pipeline, or a DiT",
        )
    texts = [""] * (geometry.rows - geometry.batch) + list(prompts)
    assert pipeline is not None
    tokens = pipeline.tokenizer(
        texts,
        padding="max_length",
        max_length=source.tokens,
        truncation=True,
        return_tensors="pt",
    )
    hidden: torch.Tensor = pipeline.text_encoder(tokens.input_ids.to(pipeline.text_encoder.device))[
        0
    ]
    return {HIDDEN_STATES: hidden.to(device)}


def _labels(source: Source, prompts: Sequence[str], geometry: Geometry) -> torch.Tensor:
    """i64[rows]; the unconditional rows carry the label one beyond the last class."""
    classes = int(source.denoiser.config.num_embeds_ada_norm)  # type: ignore[union-attr, arg-type]
    found = [_label(source, prompt.strip(), classes) for prompt in prompts]
    return torch.tensor([classes] * (geometry.rows - geometry.batch) + found)


def _label(source: Source, prompt: str, classes: int) -> int:
    names = getattr(source.pipeline, "labels", None) or {}
    number = int(prompt) if prompt.isdecimal() else names.get(prompt)
    if number is None or not 0 <= number < classes:
        raise DipgoError(
            f"prompt {prompt!r}",
            found="no class of the model",
            expected=f"a number from 0 to {classes - 1}" + (", or a class's name" if names else ""),
            remedy="correct it",
        )
    return int(number)
