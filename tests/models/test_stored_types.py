"""A pipeline whose files are in half precision is loaded in fp32, whatever loads its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from dipgo.models.source import load_source


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_every_part_is_widened(
    part: str, dtype: torch.dtype, tiny_pipeline: Path, tmp_path: Path
) -> None:
    """With transformers 5, text encoders failed at 21ce821."""
    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    stored = getattr(pipeline, part).to(dtype).state_dict()
    pipeline.save_pretrained(tmp_path / "half")
    loaded = load_source(str(tmp_path / "half")).pipeline
    for name in ("text_encoder", "unet", "vae"):
        assert {value.dtype for value in getattr(loaded, name).parameters()} == {torch.float32}
    found = getattr(loaded, part).state_dict()
    assert found.keys() == stored.keys()
    assert all(
        torch.equal(found[name], value.to(found[name].dtype)) for name, value in stored.items()
    )
