"""Weights that are no numbers are refused by name, in whatever part of a pipeline they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.export import export
from dipgo.models.finite_weights import check_no_nan, check_weights
from dipgo.models.source import load_source

WRONG = (float("nan"), float("inf"), float("-inf"))


def _pipeline(path: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(path, safety_checker=None)


def _spoil(tensor: torch.Tensor, draw: random.Random, value: float) -> None:
    with torch.no_grad():
        tensor.view(-1)[draw.randrange(tensor.numel())] = value


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_weight_of_the_denoiser_is_named(seed: int, tiny_pipeline: Path) -> None:
    """In any precision, before anything is traced."""
    draw = random.Random(seed)
    pipeline = _pipeline(tiny_pipeline).to(draw.choice((torch.float32, torch.bfloat16)))
    name, weight = draw.choice(list(pipeline.unet.named_parameters()))
    _spoil(weight, draw, draw.choice(WRONG))
    with pytest.raises(DipgoError, match=f"weight {name}: found NaN or infinity") as caught:
        load_source(pipeline)
    assert "\n" not in str(caught.value)


class _Masked(nn.Module):
    """A model with a mask of infinities, as attention has."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([0.0, value]))
        self.register_buffer("positions", torch.arange(3))


def test_masks_may_be_infinite_but_not_nan() -> None:
    check_weights(_Masked(float("-inf")), "model")
    with pytest.raises(DipgoError, match="model, buffer mask: found NaN"):
        check_weights(_Masked(float("nan")), "model")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_any_type_of_tensor_is_looked_at(dtype: torch.dtype) -> None:
    check_no_nan("here", torch.zeros(0, dtype=dtype))
    check_no_nan("here", torch.tensor([1, 2]).to(dtype))
    if dtype.is_floating_point:
        with pytest.raises(DipgoError, match="here: found NaN"):
            check_no_nan("here", torch.tensor([1.0, float("nan"), float("inf")]).to(dtype))


PARTS: dict[str, Callable[[Any], nn.Module]] = {
    "text_encoder": lambda pipeline: pipeline.text_encoder,
    "vae_decoder": lambda pipeline: pipeline.vae.decoder,
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_no_export_has_a_part_with_nan(part: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    pipeline, draw = _pipeline(tiny_pipeline), random.Random(part)
    norms = [
        weight
        for name, weight in PARTS[part](pipeline).named_parameters()
        if "norm" in name and name.endswith("weight")
    ]
    _spoil(draw.choice(norms), draw, float("nan"))
    with pytest.raises(DipgoError, match=f"weight {part}.*found NaN"):
        export(pipeline, "dense", tmp_path / "out", steps=2, scheduler="ddim")
    assert not list(tmp_path.iterdir())
