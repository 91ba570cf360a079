"""Pipelines of any float type, and saved as variants: their modules are float32 when traced."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.export import export
from dipgo.ir.manifest.file import read_manifest
from dipgo.models.float_modules import float_module
from dipgo.models.pipeline_files import find_variant
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after some steps."""
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PARTS = ("unet", "vae", "text_encoder")
STEPS, PROMPT = 2, "a red circle"


def _load(folder: Path, **options: Any) -> StableDiffusionPipeline:
    pipeline: StableDiffusionPipeline = StableDiffusionPipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _types(module: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()}


@settings(max_examples=8, deadline=None)
@given(st.fixed_dictionaries({part: st.sampled_from(TYPES) for part in PARTS}))
def test_each_part_may_have_its_own_type(
    loaded: StableDiffusionPipeline, types: dict[str, torch.dtype]
) -> None:
    """The numbers are the same, and the caller's objects stay as they are."""
    pipeline = copy.copy(loaded)
    for part, dtype in types.items():
        setattr(pipeline, part, copy.deepcopy(getattr(loaded, part)).to(dtype))
    parts = {part: getattr(pipeline, part) for part in PARTS}
    source = load_source(pipeline)
    assert source.pipeline is not None
    for name, part in parts.items():
        made = getattr(source.pipeline, name)
        assert _types(made) == {torch.float32}
        assert getattr(pipeline, name) is part
        assert _types(part) == {types[name]}
        assert (made is part) == (types[name] == torch.float32)
        before = part.state_dict()
        for key, tensor in made.state_dict().items():
            assert torch.equal(tensor, before[key].to(tensor.dtype))
    assert source.denoiser is source.pipeline.unet


@pytest.fixture(scope="module")
def loaded(tiny_pipeline: Path) -> StableDiffusionPipeline:
    return _load(tiny_pipeline)


def test_what_a_module_shares_is_shared_in_its_copy() -> None:
    """Tied weights stay one; whole numbers, and what is float32 already, are not copied."""
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).half()
    module[1].weight = module[0].weight
    module.register_buffer("places", torch.arange(3))
    module.register_buffer("exact", torch.rand(3), persistent=False)
    module.plain = module[0].bias * 2
    made = float_module(module, "module")
    assert made[1].weight is made[0].weight
    assert made.places is module.places
    assert made.exact.data_ptr() == module.exact.data_ptr()
    assert (made.plain.dtype, made[0].weight.dtype) == (torch.float32, torch.float32)
    assert torch.equal(made.plain, module.plain.float())


@pytest.mark.parametrize("change", ["int8", "meta"])
def test_weights_without_floats_are_refused(loaded: StableDiffusionPipeline, change: str) -> None:
    pipeline = copy.copy(loaded)
    pipeline.unet = copy.deepcopy(loaded.unet)
    weight = pipeline.unet.conv_in.weight.data
    other = weight.to(torch.int8) if change == "int8" else weight.to("meta")
    pipeline.unet.conv_in.weight = nn.Parameter(other, requires_grad=False)
    with pytest.raises(DipgoError, match=r"^unet, conv_in\.weight: found a (quantised )?weight"):
        load_source(pipeline)


def test_the_variant_is_read_off_the_files() -> None:
    plain = ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "model_index.json"]
    half = ["vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.bin"]
    parts = [
        f"unet/diffusion_pytorch_model.fp16-0000{part}-of-00002.safetensors" for part in (1, 2)
    ]
    assert find_variant("m", plain) is None
    assert find_variant("m", [*plain, half[0].replace("vae", "unet")]) is None
    assert find_variant("m", plain + half) == "fp16"
    assert find_variant("m", half + parts) == "fp16"
    both = [*half, half[0].replace("fp16", "bf16")]
    assert find_variant("m", both) == "fp16"
    with pytest.raises(
        DipgoError, match=r"^model m: found weights of variants only: vae bf16 fp16"
    ):
        find_variant("m", [half[0], half[0].replace("fp16", "bf16")])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["object", "variant"])
def test_an_export_is_that_of_the_pipeline_in_float32(
    kind: str, tiny_pipeline: Path, tmp_path: Path
) -> None:
    model = _load(tiny_pipeline, torch_dtype=torch.float16)
    exact = _load(tiny_pipeline, torch_dtype=torch.float16).to(torch.float32)
    if kind == "variant":
        model.save_pretrained(tmp_path / "half", variant="fp16")
    out = export(
        tmp_path / "half" if kind == "variant" else model, "dense", tmp_path / "out", steps=STEPS
    )
    generator = torch.Generator("cpu").manual_seed(0)
    expected = exact(
        PROMPT, num_inference_steps=STEPS, generator=generator, output_type="np"
    ).images
    found = Pipeline.from_export(out)(PROMPT, seed=0, output_type="np").images
    assert relative_error(torch.from_numpy(found), torch.from_numpy(expected)) < TOLERANCE
    assert read_manifest(out).precision == "fp32"
    assert np.isfinite(found).all()
