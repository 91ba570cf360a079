"""Weights that are views of one storage, or are tied, are written whole and each by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from dipgo.engines import load
from dipgo.export import export
from dipgo.export.lower.weights import save_tensors
from tests.support.compare import relative_error
from tests.support.drawn_models import own_picture, unconditional

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after some steps."""
LENGTH = 24

views = st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted)


@settings(deadline=None)
@given(st.lists(views, max_size=5), st.lists(views, max_size=3), st.booleans())
def test_any_views_are_written(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[list[int]],
    second: list[list[int]],
    half: bool,
) -> None:
    path = tmp_path_factory.mktemp("views") / "tensors.safetensors"
    dtype = torch.bfloat16 if half else torch.float32
    storages = [torch.arange(LENGTH, dtype=dtype) + offset for offset in (0, 100)]
    tensors = {
        f"{index}.{begin}.{end}.{number}": storage[begin:end]
        for index, (storage, ranges) in enumerate(zip(storages, (first, second), strict=True))
        for number, (begin, end) in enumerate(ranges)
    }
    save_tensors(tensors, path)
    stored = load_file(path)
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


@pytest.mark.slow
@torch.no_grad()
def test_a_model_whose_norms_are_views_of_one_tensor(tmp_path: Path) -> None:
    """Overlapping, the same numbers, and tied."""
    torch.manual_seed(0)
    pipeline = unconditional()
    norms = [one for one in pipeline.unet.modules() if isinstance(one, nn.GroupNorm)]
    numbers = torch.rand(12) + 0.5
    norms[0].weight, norms[0].bias = (nn.Parameter(numbers[at : at + 8]) for at in (0, 4))
    norms[1].weight = nn.Parameter(norms[0].weight.data)
    norms[1].bias = norms[0].bias
    out = export(pipeline, "dense", tmp_path / "out", steps=2)
    noise = torch.randn(1, 3, 8, 8)
    found = load(out, threads=1).run({"latents": noise.numpy()})["latents"]
    expected = own_picture(pipeline, noise, steps=2)
    assert relative_error(torch.from_numpy(found), expected) < TOLERANCE
    assert np.isfinite(found).all()
