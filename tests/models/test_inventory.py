"""What a pipeline is, and what has been done to it, decides whether it is taken."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    DiffusionPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.image_processor import VaeImageProcessor

from dipgo.common.errors import DipgoError
from dipgo.models.as_found import left_as_found
from dipgo.models.registry import built_in_families
from dipgo.models.source import load_source
from scripts.fuzz.draws import draw_case
from scripts.fuzz.pipelines import build_pipeline
from tests.support.tiny_pipeline import save_tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("inventory") / "pipeline")


@pytest.fixture
def pipeline(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder)


STRANGERS = [
    name
    for name in (
        "StableDiffusionPAGPipeline",
        "StableDiffusionPAGImg2ImgPipeline",
        "StableDiffusionPanoramaPipeline",
        "StableDiffusionSAGPipeline",
        "StableDiffusionAttendAndExcitePipeline",
        "StableDiffusionDiffEditPipeline",
        "StableDiffusionLDM3DPipeline",
        "StableDiffusionParadigmsPipeline",
        "StableDiffusionModelEditingPipeline",
        "LEditsPPPipelineStableDiffusion",
    )
    if hasattr(diffusers, name)
]


@pytest.mark.parametrize("name", STRANGERS)
def test_classes_that_make_pictures_in_another_way(name: str, pipeline: Any) -> None:
    """Failed at 21ce821 for all: they were exported without a text encoder and their own way."""
    cls = getattr(diffusers, name)
    other = cls.__new__(cls)
    other.register_modules(**{name: part for name, part in pipeline.components.items() if part})
    with pytest.raises(DipgoError, match=f"found a {name}, whose way .*from_pipe"):
        load_source(other)


def test_all_classes_of_families_are_diffusers() -> None:
    for family in built_in_families():
        assert family.pipelines
        classes = (getattr(diffusers, name) for name in family.pipelines)
        assert all(issubclass(cls, DiffusionPipeline) for cls in classes)


def _own(pipeline: Any, *arguments: Any, **more: Any) -> Any:
    return None


METHODS = (
    "__call__",
    "encode_prompt",
    "prepare_latents",
    "prepare_extra_step_kwargs",
    "get_guidance_scale_embedding",
    "encode_image",
    "prepare_ip_adapter_image_embeds",
)


def _on_object(pipeline: Any, method: str, drawn: random.Random) -> Any:
    original = getattr(pipeline, method)
    replacement = drawn.choice([partial(_own, pipeline), wraps(original)(lambda *a, **k: None)])
    setattr(pipeline, method, replacement)
    return pipeline


def _in_subclass(pipeline: Any, method: str, drawn: random.Random) -> Any:
    parents: tuple[type, ...] = (type(pipeline),)
    if drawn.random() < 0.5:
        parents = (type("Mixed", (), {method: _own}), *parents)
        pipeline.__class__ = type("Mine", parents, {})
    else:
        pipeline.__class__ = type("Mine", parents, {method: _own})
    return pipeline


WAYS = {"object": _on_object, "subclass": _in_subclass}


CASES = [
    (method, way)
    for method in METHODS
    for way in WAYS
    if (method, way) != ("__call__", "object")  # Python looks it up in the class
]


@pytest.mark.parametrize(("method", "way"), CASES)
def test_replaced_methods_are_refused(method: str, way: str, pipeline: Any) -> None:
    """Failed at 21ce821 for all 13: diffusers' own way was exported."""
    changed = WAYS[way](pipeline, method, random.Random(method))
    with pytest.raises(DipgoError, match=f"the {method} of .* in place of that of diffusers'"):
        load_source(changed)


@pytest.mark.parametrize("method", METHODS)
def test_methods_replaced_in_the_class_are_refused(
    method: str, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(StableDiffusionPipeline, method)
    monkeypatch.setattr(StableDiffusionPipeline, method, wraps(original)(_own))
    with pytest.raises(DipgoError, match=f"another {method} of the class"):
        load_source(pipeline)


class _Processor(VaeImageProcessor):
    pass


OTHERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "processor": (
        lambda pipeline: setattr(pipeline, "image_processor", _Processor()),
        "a _Processor as image_processor",
    ),
    "option": (
        lambda pipeline: pipeline.register_to_config(sharpened=2),
        "the option sharpened 2",
    ),
    "cache": (
        lambda pipeline: HookRegistry.check_if_exists_or_initialize(
            pipeline.unet.mid_block
        ).register_hook(ModelHook(), "some_cache"),
        "unet.mid_block: found diffusers' hook some_cache",
    ),
    "pictures in another range": (
        lambda pipeline: pipeline.image_processor.register_to_config(do_normalize=False),
        "the option do_normalize False of its image_processor",
    ),
    "casts": (
        lambda pipeline: pipeline.unet.enable_layerwise_casting(
            storage_dtype=torch.float16, compute_dtype=torch.float32
        ),
        "diffusers' hook layerwise_casting",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_changes_are_refused(name: str, pipeline: Any) -> None:
    change, message = OTHERS[name]
    change(pipeline)
    with pytest.raises(DipgoError, match=message):
        load_source(pipeline)


HARMLESS: dict[str, Callable[[Any], Any]] = {
    "progress bar": lambda pipeline: pipeline.set_progress_bar_config(disable=True),
    "own progress bar": lambda pipeline: setattr(pipeline, "progress_bar", lambda steps: steps),
    "slices": lambda pipeline: (pipeline.enable_attention_slicing(), pipeline.vae.enable_slicing()),
    "note": lambda pipeline: setattr(pipeline, "note", object()),
    "subclass": lambda pipeline: setattr(
        pipeline, "__class__", type("Mine", (StableDiffusionPipeline,), {"more": _own})
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_makes_no_difference_is_taken(name: str, pipeline: Any) -> None:
    HARMLESS[name](pipeline)
    load_source(pipeline)


def test_inpainting_without_a_mask_in_the_denoiser(pipeline: Any) -> None:
    """Failed at 21ce821: exported as a pipeline that draws whole pictures."""
    parts = pipeline.components
    inpainting = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(DipgoError, match=r"mixes the picture with the latents at every step"):
        load_source(inpainting)


def test_an_error_leaves_the_pipeline(pipeline: Any) -> None:
    before = vars(pipeline) | {"training": pipeline.unet.training}
    pipeline.encode_prompt = partial(_own, pipeline)
    with pytest.raises(DipgoError), left_as_found(pipeline):
        load_source(pipeline)
    del pipeline.encode_prompt
    assert vars(pipeline) | {"training": pipeline.unet.training} == before


def test_parts_that_paint_in_in_another_way(tmp_path: Path) -> None:
    """Before 2026-11-30 grey masks and asymmetric VAEs gave other pictures without a word."""
    draw = replace(draw_case(1), family="sd", task="inpaint", odd="", scheduler="DDIMScheduler")
    pipeline = build_pipeline(replace(draw, options={}, inversion=0), tmp_path)
    load_source(pipeline)
    pipeline.mask_processor.register_to_config(do_binarize=False)
    with pytest.raises(DipgoError, match="the option do_binarize False of its mask_processor"):
        load_source(pipeline)
    pipeline.mask_processor.register_to_config(do_binarize=True)
    pipeline.register_modules(
        vae=AsymmetricAutoencoderKL(
            down_block_out_channels=(8, 8), up_block_out_channels=(8, 8), norm_num_groups=4
        )
    )
    with pytest.raises(DipgoError, match="whose decoder also takes the picture and its mask"):
        load_source(pipeline)
