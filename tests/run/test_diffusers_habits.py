"""Arguments and members of diffusers' pipelines: taken where they say what the export is anyway.

By the code of 3bfeb0e: TypeErrors and AttributeErrors: no argument of diffusers that an export has
decided was known, and no prompt embeddings could be given.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import dipgo
from dipgo.common.errors import DipgoError
from dipgo.export import export
from dipgo.run.diffusers_arguments import ELSEWHERE, FIXED
from dipgo.run.diffusers_members import MEMBERS
from dipgo.run.pipeline import Pipeline
from tests.support.build_once import build_once

LATENTS = 1e-5
"""Relative L2, float32 kernels of another library."""

STEPS = 2
COMMON: dict[str, Any] = {"prompt": "a", "seed": 1, "output_type": "latent"}


@pytest.fixture(scope="module")
def exported(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of DDIM, two pictures a run."""
    settings: dict[str, Any] = {"steps": STEPS, "scheduler": "ddim", "batch": 2}
    return build_once(
        tmp_path_factory, "habits", lambda out: export(tiny_pipeline, "dense", out, **settings)
    )


@pytest.fixture(scope="module")
def pipeline(exported: Path) -> Pipeline:
    return Pipeline.from_export(exported, threads=1)


def _own(pipeline: Pipeline) -> dict[str, Any]:
    timesteps = [step.timestep for step in pipeline.runner.export.plan.steps]
    return {
        "num_inference_steps": np.int64(STEPS),
        "height": 64,
        "width": 64.0,
        "eta": 0.0,
        "guidance_rescale": 0.0,
        "timesteps": torch.tensor(timesteps),
    }


def test_what_the_export_is_anyway_is_taken(pipeline: Pipeline) -> None:
    """And None, for every argument of diffusers."""
    expected = pipeline(**COMMON).images
    assert np.array_equal(pipeline(**COMMON, **_own(pipeline)).images, expected)
    nothing = dict.fromkeys((*FIXED, *ELSEWHERE))
    assert np.array_equal(pipeline(**COMMON, **nothing).images, expected)


@pytest.mark.parametrize("name", [*FIXED, *ELSEWHERE])
@pytest.mark.parametrize("value", [7, 0.77, "much", [3, 2], {"scale": 1}, True], ids=str)
def test_what_it_is_not_is_refused_in_a_line(name: str, value: Any, pipeline: Pipeline) -> None:
    with pytest.raises(DipgoError, match=f"^{name}: found ") as caught:
        pipeline(**COMMON, **{name: value})
    assert str(caught.value).isprintable()
    assert caught.value.remedy


MESSAGES = [
    ("num_inference_steps", 50, "found 50; expected 2, as the export has; leave it out, or export"),
    ("height", 512, "found 512; expected 64, as the export has; leave it out, or export again"),
    ("strength", 0.5, "found 0.5; expected none; leave it out, or export again with strength"),
    ("cross_attention_kwargs", {"scale": 1}, "found a dict; expected nothing: an export is fixed"),
]


@pytest.mark.parametrize(("name", "value", "message"), MESSAGES)
def test_the_line_says_what_to_do(name: str, value: Any, message: str, pipeline: Pipeline) -> None:
    with pytest.raises(DipgoError, match=f"^{name}: {message}"):
        pipeline(**COMMON, **{name: value})


@pytest.mark.parametrize("name", [*MEMBERS, "enable_attention_slicing", "disable_vae_tiling"])
def test_members_of_diffusers(name: str, pipeline: Pipeline) -> None:
    """`hasattr` answers, as for every object."""
    assert not hasattr(pipeline, name)
    with pytest.raises(DipgoError, match=rf"^Pipeline\.{name}: found a member of diffusers'"):
        getattr(pipeline, name)
    assert getattr(pipeline, name, None) is None


@pytest.mark.parametrize("name", ["scheduler", "unet", "device"])
def test_members_cannot_be_set(name: str, pipeline: Pipeline) -> None:
    """Failed at 1f7a445: it was taken, and changed nothing."""
    with pytest.raises(DipgoError, match=rf"Pipeline\.{name}: found a member of diffusers"):
        setattr(pipeline, name, None)


def test_other_members_are_as_ever(pipeline: Pipeline) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'") as caught:
        pipeline.nothing  # noqa: B018
    assert not isinstance(caught.value, DipgoError)
    assert copy.copy(pipeline).runner is pipeline.runner


def test_members_are_those_of_diffusers() -> None:
    """Those of its class, as far as the table names them."""
    known = {*dir(StableDiffusionPipeline), *MEMBERS}
    for name in ("to", "enable_model_cpu_offload", "enable_attention_slicing", "load_lora_weights"):
        assert name in known
    public = [name for name in dir(Pipeline) if not name.startswith("_")]
    assert not {*public} & {*MEMBERS}


def _embeds(tiny_pipeline: Path, texts: list[str]) -> torch.Tensor:
    theirs = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    return theirs.encode_prompt(texts, "cpu", 1, False)[0]


TEXTS, NEGATIVES = ["a red circle", "Green", "a square"], ["blue", "", "a line"]


def test_embeddings_are_the_prompts_whose_they_are(tiny_pipeline: Path, pipeline: Pipeline) -> None:
    """Three prompts in batches of two, two pictures each, as numpy's arrays and as tensors."""
    options: dict[str, Any] = {"seed": 3, "output_type": "latent", "num_images_per_prompt": 2}
    expected = pipeline(TEXTS, negative_prompt=NEGATIVES, **options).images
    positive, negative = (_embeds(tiny_pipeline, texts) for texts in (TEXTS, NEGATIVES))
    for form in (lambda tensor: tensor, lambda tensor: tensor.detach().numpy()):
        given = {"prompt_embeds": form(positive), "negative_prompt_embeds": form(negative)}
        found = pipeline(**given, **options).images
        assert np.linalg.norm(found - expected) < LATENTS * np.linalg.norm(expected)
    without = pipeline(TEXTS, **options).images
    found = pipeline(prompt_embeds=positive, **options).images
    assert np.linalg.norm(found - without) < LATENTS * np.linalg.norm(without)
    mixed = pipeline(TEXTS, negative_prompt_embeds=negative, **options).images
    assert np.linalg.norm(mixed - expected) < LATENTS * np.linalg.norm(expected)


def test_embeddings_as_diffusers_takes_them(tiny_pipeline: Path, pipeline: Pipeline) -> None:
    from diffusers import DDIMScheduler

    theirs: Any = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    shape = (2, *pipeline.runner.inputs["encoder_hidden_states"].shape[1:])
    embeds, negatives = torch.randn(2, *shape, generator=generator)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negatives, "guidance_scale": 3.0}
    found = pipeline(**given, seed=4, output_type="latent").images
    expected = theirs(
        **given,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(4),
        output_type="latent",
    ).images.numpy()
    assert np.linalg.norm(found - expected) < LATENTS * np.linalg.norm(expected)


GOOD = np.zeros((2, 16, 32), np.float32)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"prompt": "a", "prompt_embeds": GOOD}, "^prompt: found one besides its embeddings"),
    "shape": (
        {"prompt_embeds": GOOD[:, :8]},
        r"^prompt_embeds: found float32\[2, 8, 32\]; expected f32\[prompts, 16, 32\]; ",
    ),
    "type": ({"prompt_embeds": "a"}, r"^prompt_embeds: found 'a' \(str\); expected f32\[prompts"),
    "NaN": ({"prompt_embeds": GOOD * np.nan}, "^prompt_embeds: found NaN or infinity; "),
    "none": ({"prompt_embeds": GOOD[:0]}, r"^prompt_embeds: found float32\[0, 16, 32\]; "),
    "pooled": (
        {"prompt_embeds": GOOD, "pooled_prompt_embeds": GOOD},
        "^pooled_prompt_embeds: found an array for a model that takes none; expected none",
    ),
    "rows": (
        {"prompt_embeds": GOOD, "negative_prompt_embeds": GOOD[:1]},
        "^negative_prompt_embeds: found 1 rows; expected as many as prompts: 2",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_embeddings_that_do_not_fit(name: str, pipeline: Pipeline) -> None:
    given, message = WRONG[name]
    with pytest.raises(DipgoError, match=message):
        pipeline(**given)


def test_one_line_describes_a_pipeline(pipeline: Pipeline, exported: Path) -> None:
    for shown in map(repr, (pipeline, pipeline.runner, pipeline.runner.export)):
        assert "\n" not in shown
        assert len(shown) < 300
        assert "UNet2DConditionModel of tiny" in shown
        assert str(exported) in shown
    assert repr(pipeline).startswith("<Pipeline: StableDiffusionPipeline, UNet2DConditionModel of")
    assert "2 steps" in repr(pipeline)
    part = next(iter(pipeline.runner.parts))
    assert repr(part).startswith("<Part ")
    subnet = dipgo.SubNet.dense([500, 1], ["a", "b"], num_inference_steps=2)
    assert repr(subnet) == "<SubNet: 2 steps, 2 blocks, 1.0000 of the gates on>"


def test_public_names() -> None:
    assert {"DipgoError", "Pipeline", "SubNet", "__version__", "engines", "export"} <= {*dir(dipgo)}
    assert all(getattr(dipgo, name) is not None for name in dir(dipgo))
