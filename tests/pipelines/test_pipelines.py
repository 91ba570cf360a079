"""`dipgo.Pipeline` against diffusers' own pipelines, from the export directory alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from dipgo.common.errors import DipgoError
from dipgo.export import export
from dipgo.models.family import Geometry
from dipgo.models.prompts import encode_prompts
from dipgo.models.source import absent_parts, load_source
from dipgo.run.pipeline import Pipeline
from tests.support.tiny_pipelines import save_pipeline

LATENTS = 1e-5
"""Relative L2, float32 kernels of another library, after three steps."""
PICTURES = 1 / 255
STEPS = 3
NAMES = ("sd", "sdxl", "sdxl_normalised", "sd3", "sd3_t5", "dit")
PROMPTS: list[Any] = ["a large red circle", "Green", "a square"]
CLASSES: list[Any] = [207, 7, 999]

ALONE = """
import json, sys
sys.modules.update(dict.fromkeys(("torch", "diffusers", "transformers", "onnx")))
import numpy as np
from dipgo.pipeline import Pipeline
pipeline = Pipeline.from_export(sys.argv[1], threads=1)
options = json.loads(sys.argv[2])
latents = pipeline(**options, output_type="latent").images
np.savez(sys.argv[3], latents=latents, pictures=pipeline.decode(latents))
"""
"""Run where an import of what is no base dependency fails."""


class Case:
    """A pipeline, saved, and its export for two pictures a run."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.path = save_pipeline(name, folder)
        self.out = export(self.path, "dense", folder / "out", steps=STEPS, batch=2)
        self.pipeline = Pipeline.from_export(self.out, threads=1)
        self.reference: Any = DiffusionPipeline.from_pretrained(
            self.path, **absent_parts(self.path)
        )
        self.reference.set_progress_bar_config(disable=True)
        self.prompts = CLASSES if name == "dit" else PROMPTS

    def expected(self, output_type: str, seed: Any = 3, **options: Any) -> NDArray[np.float32]:
        """Of diffusers; latents too where `DiTPipeline` cannot give them."""
        seeds = seed if isinstance(seed, list) else [seed]
        generators = [torch.Generator("cpu").manual_seed(one) for one in seeds]
        generator = generators if isinstance(seed, list) else generators[0]
        options = {"num_inference_steps": STEPS, "generator": generator, **options}
        if self.name != "dit":
            images = self.reference(output_type=output_type, **options).images
            return images.numpy() if output_type == "latent" else images
        if output_type == "latent":
            return self._latents_of_dit(options)
        return self.reference(output_type=output_type, **options).images

    def _latents_of_dit(self, options: dict[str, Any]) -> NDArray[np.float32]:
        """What it hands to its VAE, before the scaling is undone."""
        held: list[torch.Tensor] = []
        decode = self.reference.vae.decode
        self.reference.vae.decode = lambda latents: held.append(latents) or decode(latents)
        self.reference(output_type="np", **options)
        self.reference.vae.decode = decode
        found: NDArray[np.float32] = (held[0] * self.reference.vae.config.scaling_factor).numpy()
        return found


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("sdxl", tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("dit", tmp_path_factory.mktemp("dit"))


def _error(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _prompts(case: Case) -> dict[str, Any]:
    return {"class_labels" if case.name == "dit" else "prompt": case.prompts}


@pytest.mark.slow
def test_the_directory_alone_gives_the_pictures_of_diffusers(case: Case) -> None:
    """Three prompts in batches of two, the default guidance, no negative prompt, no torch."""
    given = json.dumps({"prompt": case.prompts, "seed": 3})
    result = case.folder / "found.npz"
    command = [sys.executable, "-c", ALONE, str(case.out), given, str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(result)
    error = _error(found["latents"], case.expected("latent", **_prompts(case)))
    pictures = case.expected("np", **_prompts(case))
    distance = np.abs(found["pictures"] - pictures).max()
    print(f"{case.name}: latents {error:.1e}, pictures {distance:.1e}")
    assert error < LATENTS
    assert distance < PICTURES


def test_negative_prompts_and_several_pictures_a_prompt(case: Case) -> None:
    """Six pictures in three batches: of each prompt two, with a negative prompt each."""
    if case.name == "dit":
        found = case.pipeline(case.prompts, seed=4, guidance_scale=2.5, output_type="latent")
        expected = case.expected("latent", 4, guidance_scale=2.5, class_labels=case.prompts)
        assert _error(found.images, expected) < LATENTS
        return
    options = {
        "prompt": case.prompts,
        "negative_prompt": ["blue", "", "a line"],
        "num_images_per_prompt": 2,
        "guidance_scale": 3.0,
    }
    found = case.pipeline(**options, seed=4, output_type="latent").images
    assert found.shape[0] == 6
    assert _error(found, case.expected("latent", 4, **options)) < LATENTS


def test_an_empty_negative_prompt_is_not_none(case: Case) -> None:
    """In Stable Diffusion XL; in the others it is the same."""
    if case.name == "dit":
        assert case.pipeline.manifest.pipeline.zeros_without_negative is False
        return
    prompt = case.prompts[0]
    empty = case.pipeline(prompt, negative_prompt="", seed=0, output_type="latent").images
    none = case.pipeline(prompt, seed=0, output_type="latent").images
    expected = case.expected("latent", 0, prompt=prompt, negative_prompt="")
    assert _error(empty, expected) < LATENTS
    assert (_error(none, empty) > 1e-3) == (case.name == "sdxl")


def test_a_seed_for_each_picture(case: Case) -> None:
    seeds = [11, 5, 11]
    found = case.pipeline(case.prompts, seed=seeds, output_type="latent").images
    assert _error(found, case.expected("latent", seeds, **_prompts(case))) < LATENTS
    generators = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    again = case.pipeline(case.prompts, generator=generators, output_type="latent").images
    assert _error(again, case.expected("latent", seeds, **_prompts(case))) < LATENTS


def test_one_generator_for_each_picture(case: Case) -> None:
    """The same object, named for each: it draws for each in turn, as in diffusers."""
    ours, theirs = ([torch.Generator("cpu").manual_seed(11)] * 3 for _ in range(2))
    found = case.pipeline(case.prompts, generator=ours, output_type="latent").images
    expected = case.expected("latent", generator=theirs, **_prompts(case))
    assert _error(found, expected) < LATENTS
    assert _error(found[1:2], found[:1]) > LATENTS
    assert torch.equal(ours[0].get_state(), theirs[0].get_state())


def test_without_a_seed_one_is_drawn(case: Case) -> None:
    """The output says which, so that the pictures can be made again."""
    first, second = (case.pipeline(case.prompts, output_type="latent") for _ in range(2))
    assert first.seed != second.seed
    assert _error(first.images, second.images) > LATENTS
    again = case.pipeline(case.prompts, seed=first.seed, output_type="latent")
    assert again.seed == first.seed
    assert np.array_equal(again.images, first.images)


def test_no_guidance_up_to_a_scale_of_one(case: Case) -> None:
    found = case.pipeline(case.prompts, guidance_scale=0.5, seed=0, output_type="latent").images
    expected = case.expected("latent", 0, guidance_scale=0.5, **_prompts(case))
    assert _error(found, expected) < LATENTS


def test_the_search_sees_the_same_conditioning(case: Case) -> None:
    """`encode_prompts` gives the inputs that the export's own text encoder gives."""
    source = load_source(case.reference)
    geometry = Geometry(batch=2, tokens=source.tokens)
    texts = [str(prompt) for prompt in case.prompts[:2]]
    found = encode_prompts(source, texts, geometry)
    expected = case.pipeline._condition(texts, None)
    assert (
        set(found)
        == set(expected)
        == set(case.pipeline.runner.inputs)
        - {
            "latents",
            "guidance_scale",
        }
    )
    for name, array in expected.items():
        assert np.abs(found[name].numpy() - array).max() < 1e-5, name


def test_output_types(sdxl: Case) -> None:
    picture = sdxl.pipeline(PROMPTS[0], seed=0).images[0]
    assert isinstance(picture, Image.Image)
    (pictures,) = sdxl.pipeline(PROMPTS[0], seed=0, output_type="np", return_dict=False)
    assert np.array_equal(np.asarray(picture), (pictures[0] * 255).round().astype(np.uint8))


@pytest.mark.parametrize("output_type", ["pil", "np", "latent"])
def test_numbers_that_overflow_are_no_pictures(sdxl: Case, output_type: Any) -> None:
    """They were black, and as good as dense ones that overflowed too."""
    with pytest.raises(DipgoError, match=r"^latents: found \d+ of 1024 numbers that are infinite"):
        sdxl.pipeline("a", guidance_scale=3e38, output_type=output_type)
    with pytest.raises(DipgoError, match=r"^pictures: found \d+ of \d+ numbers that are infinite"):
        sdxl.pipeline.decode(np.full((1, 4, 16, 16), 3e38, np.float32))


def test_latents_take_the_place_of_noise(sdxl: Case) -> None:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(8))
    found = sdxl.pipeline(PROMPTS[0], latents=latents.numpy(), output_type="latent").images
    drawn = sdxl.pipeline(PROMPTS[0], seed=8, output_type="latent").images
    assert _error(found, drawn) < 1e-5  # numpy's noise is torch's up to rounding
    expected = sdxl.expected("latent", prompt=PROMPTS[0], latents=latents)
    assert _error(found, expected) < LATENTS


def test_a_callback_after_every_step(sdxl: Case) -> None:
    """With the timesteps that diffusers gives; two batches, so twice."""
    found: list[tuple[int, float]] = []
    expected: list[tuple[int, float]] = []

    def ours(pipeline: Any, step: int, timestep: float, tensors: dict[str, Any]) -> None:
        found.append((step, timestep))

    def theirs(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        expected.append((step, float(timestep)))
        return tensors

    sdxl.pipeline(PROMPTS, callback_on_step_end=ours, output_type="latent")
    sdxl.expected("latent", prompt=PROMPTS[0], callback_on_step_end=theirs)
    assert np.allclose(found, expected * 2)


def test_names_of_classes(dit: Case) -> None:
    names = ["golden retriever", "cock"]
    assert names[0] in dit.pipeline.manifest.pipeline.classes.names
    found = dit.pipeline(names, seed=0, output_type="latent").images
    assert np.array_equal(found, dit.pipeline([207, 7], seed=0, output_type="latent").images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_type": "pt"}, "output_type 'pt': found a torch tensor"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt: found 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale: found nan"),
        ({"generator": 1, "seed": 2}, "generator: found a seed too"),
        ({"generator": "one"}, "generator: found 'one'"),
        ({"seed": [1, 2]}, "seed: found 2 seeds; expected one, or as many as pictures: 1"),
        ({"seed": -1}, "seed: found -1"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32)}, r"latents: found float32\[1, 4, 8, 8\]"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt: found 2 texts"),
        ({"prompt": []}, "prompt: found none"),
        ({"prompt": 3}, r"prompt 3: found what is no text \(int\)"),
        (
            {"callback_on_step_end": lambda *given: {"latents": 0}},
            "callback_on_step_end, step 0: found latents to be changed",
        ),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_bad_arguments(sdxl: Case, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DipgoError, match=message):
        sdxl.pipeline(**{"prompt": "a", **options})


@pytest.mark.parametrize("label", [1000, "cat", -1])
def test_labels_out_of_range(dit: Case, label: Any) -> None:
    expected = f"prompt {label!r}: found no class of the model; expected a number from 0 to 999, or"
    with pytest.raises(DipgoError, match=expected):
        dit.pipeline(label)
    with pytest.raises(DipgoError, match="negative_prompt: found one for a model"):
        dit.pipeline(1, negative_prompt="blue")


def test_an_export_of_a_denoiser_alone_names_the_pipelines(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    from dipgo.models.model import Source
    from tests.support.zoo import ZOO
    from tests.support.zoo import case as zoo_case

    denoiser = zoo_case("dit", "block", guidance=True).denoiser
    source = Source("dit", denoiser, ZOO["dit"].family, DDIMScheduler(clip_sample=False), 8, 7)
    out = export(source, "dense", tmp_path / "out", steps=2)
    with pytest.raises(
        DipgoError, match=r"of a denoiser alone; .*a whole pipeline, .*docs/guide/families\.md"
    ):
        Pipeline.from_export(out)
