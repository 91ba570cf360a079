"""Exports whose sampler draws noise: the pictures of diffusers' own pipeline for the same seed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerAncestralDiscreteScheduler

from dipgo.common.errors import DipgoError
from dipgo.common.torch_noise import draw_noise
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.request import silent
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.unroll import unroll
from dipgo.engines import load
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.export.dense_twin import export_dense_twin
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.run.pipeline import Pipeline
from dipgo.search.api import SearchRequest, pose
from dipgo.search.examples import FIRST_NOISE
from tests.support.eager import run_eagerly
from tests.support.random_subnets import random_subnet
from tests.support.stochastic import NAMED
from tests.support.tiny_search import rows_on, run_hard, tiny_examples, tiny_net
from tests.support.zoo import ZOO, case

TOLERANCE = 1e-5  # relative to the largest value
STEPS = 4
PROMPTS = ["a large red circle", "green", "a small square at the left"]
CASES = [("euler-a", 1), ("ddpm", 1), ("ddim", 1), ("lcm", 1), ("euler-a", 2), ("dpm++-sde", 2)]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), CASES)
def test_pictures_are_those_of_diffusers(
    tiny_pipeline: Path, tmp_path: Path, name: str, batch: int
) -> None:
    """Three prompts in batches, of one generator and of a generator a picture."""
    eta = NAMED[name]
    export(
        tiny_pipeline, "dense", tmp_path / "out", steps=STEPS, batch=batch, scheduler=name, eta=eta
    )
    ours = Pipeline.from_export(tmp_path / "out")
    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(pipeline.scheduler, name)

    def expected(generator: Any) -> np.ndarray:
        result = pipeline(
            PROMPTS,
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            eta=eta,
            generator=generator,
            output_type="latent",
        )
        latents: np.ndarray = result.images.numpy()
        return latents

    seeds = [7, 8, 2**33]
    many = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    wanted = expected(torch.Generator("cpu").manual_seed(7)), expected(many)
    found = [
        ours(PROMPTS, seed=seed, guidance_scale=4.0, output_type="latent") for seed in (7, seeds)
    ]
    errors = [relative(one.images, other) for one, other in zip(found, wanted, strict=True)]
    print(f"{name}, batch {batch}: {errors}")
    assert max(errors) <= TOLERANCE
    assert relative(*wanted) > 0.1
    noise = torch.randn((3, 4, 16, 16), generator=torch.Generator().manual_seed(1)).numpy()
    latents = ours(PROMPTS, seed=7, guidance_scale=4.0, latents=noise, output_type="latent").images
    generator = torch.Generator("cpu").manual_seed(7)
    again = pipeline(
        PROMPTS,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        eta=eta,
        generator=generator,
        latents=torch.from_numpy(noise),
        output_type="latent",
    ).images.numpy()
    assert relative(latents, again) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_generator_moves_on_as_in_diffusers(
    name: str, tiny_pipeline: Path, tmp_path: Path
) -> None:
    """Failed at e6859a8 for schedulers that draw at the last step and use nothing of it."""
    out = export(tiny_pipeline, "dense", tmp_path / "out", steps=STEPS, scheduler=name, eta=None)
    ours = Pipeline.from_export(out)
    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(pipeline.scheduler, name)
    generators = [torch.Generator("cpu").manual_seed(5) for _ in range(2)]
    wanted = pipeline(
        "red", num_inference_steps=STEPS, generator=generators[0], output_type="latent"
    ).images.numpy()
    found = ours("red", generator=generators[1], output_type="latent").images
    assert relative(found, wanted) <= 10 * TOLERANCE
    assert torch.equal(*(generator.get_state() for generator in generators))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SubNet]:
    """A U-Net with random gates and Euler-ancestral."""
    scheduler, chosen = EulerAncestralDiscreteScheduler(), case("asymmetric", "block")
    graph = chosen.traced.graph
    subnet = random_subnet(random.Random(2), graph, probe(scheduler, 6))
    gates = np.random.default_rng(2).random(subnet.gates.shape) < 0.5
    gates[0] = True
    subnet = replace(subnet, gates=gates)
    source = Source("zoo", chosen.denoiser, ZOO["asymmetric"].family, scheduler, 8, tokens=7)
    return export(source, subnet, tmp_path_factory.mktemp("pruned") / "out"), subnet


@pytest.mark.slow
def test_random_gates_are_those_of_module_hooks(pruned: tuple[Path, SubNet]) -> None:
    path, subnet = pruned
    chosen, runner = case("asymmetric", "block"), load(path)
    assert not subnet.gates.all()
    plan = runner.export.plan
    draws = draw_noise(3, runner.inputs["latents"].shape, [one.index - 1 for one in plan.draws])
    inputs = {name: tensor.numpy() for name, tensor in chosen.inputs.items()}
    inputs |= {one.value: draws[one.index - 1] for one in plan.draws}
    found = runner.run(inputs)["latents"]
    generator = torch.Generator("cpu").manual_seed(3)
    wanted = run_eagerly(chosen, EulerAncestralDiscreteScheduler(), subnet, generator).numpy()
    error = relative(found, wanted)
    print(f"random gates: {error:.1e}")
    assert error <= TOLERANCE


def test_the_manifest_says_which_draws_the_inputs_are(pruned: tuple[Path, SubNet]) -> None:
    manifest = read_manifest(pruned[0])
    draws = {one.value: one.index for one in manifest.program.draws}
    assert draws == {f"noise.{index}": index for index in range(1, 6)}
    types = {one.name: one.type for one in manifest.inputs}
    assert {types[name] for name in draws} == {types["latents"]}
    assert manifest.sampler.eta == 0.0


def test_a_draw_is_an_input_that_must_be_given(pruned: tuple[Path, SubNet]) -> None:
    runner = load(pruned[0])
    inputs = random_inputs(runner)
    assert runner.run(inputs)["latents"].shape == runner.inputs["latents"].shape
    del inputs["noise.2"]
    with pytest.raises(
        DipgoError, match=r"^input noise\.2: found missing; expected inputs latents"
    ):
        runner.run(inputs)


@pytest.mark.slow
def test_the_dense_twin_draws_as_much(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Its scheduler is that of the export in all options, and its eta."""
    for name in ("dpm++-sde", "tcd"):
        export(tiny_pipeline, "dense", tmp_path / name, steps=3, scheduler=name, eta=NAMED[name])
        twin = export_dense_twin(tmp_path / name, str(tiny_pipeline), tmp_path / "twin", silent)
        first, second = read_manifest(tmp_path / name), read_manifest(twin)
        assert first.program.draws
        assert first.sampler == second.sampler
        assert first.program == second.program
        (tmp_path / "twin").rename(tmp_path / f"twin of {name}")


def test_seeds_must_be_as_many_as_prompts(tiny_pipeline: Path, tmp_path: Path) -> None:
    export(tiny_pipeline, "dense", tmp_path / "out", steps=1)
    with pytest.raises(DipgoError, match=r"^seed: found 2 seeds; expected one, or as many .+: 3; "):
        Pipeline.from_export(tmp_path / "out")(PROMPTS, seed=[1, 2])


def test_an_eta_for_a_scheduler_without_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"^eta: found 0\.5 for PNDMScheduler, which has none"):
        export(tiny_pipeline, "dense", tmp_path / "out", steps=3, eta=0.5)
    assert not (tmp_path / "out").exists()


def test_a_subnet_is_exported_with_any_eta(tiny_pipeline: Path, tmp_path: Path) -> None:
    """It names the scheduler; how much noise that draws is the export's to say."""
    scheduler = make_scheduler(DiffusionPipeline.from_pretrained(tiny_pipeline).scheduler, "ddim")
    assert isinstance(scheduler, DDIMScheduler)
    timesteps = probe(scheduler, 3).timesteps
    subnet = SubNet.dense(timesteps, ["mid_block"], num_inference_steps=3)
    export(tiny_pipeline, subnet, tmp_path / "out", scheduler="ddim", eta=1.0)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.sampler.eta == 1.0
    assert [one.index for one in manifest.program.draws] == [1, 2, 3]


def test_a_subnet_says_what_its_schedulers_class_does_not(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    """DPM-Solver++ is one class, with draws and without."""
    problem = pose(tiny_pipeline, SearchRequest(0.6, 3, "dpm++-sde", batch=1))
    subnet = problem.subnet(rows_on(problem, 0, 1, 2), {})
    assert subnet.scheduler is not None
    assert subnet.scheduler.config == {"algorithm_type": "sde-dpmsolver++"}
    subnet.save(tmp_path / "subnet.json")
    export(tiny_pipeline, tmp_path / "subnet.json", tmp_path / "out")
    assert read_manifest(tmp_path / "out").program.draws
    with pytest.raises(DipgoError, match=r"scheduler\.config\.algorithm_type: found 'sde-"):
        export(tiny_pipeline, subnet, tmp_path / "other", scheduler="dpm++")


def test_the_search_walks_the_trajectory_that_is_exported(tiny_pipeline: Path) -> None:
    """Dense and pruned, with noise for every picture from a seed of its own."""
    request = SearchRequest(0.5, 4, "ddim", batch=2, eta=1.0)
    problem = pose(tiny_pipeline, request)
    net = tiny_net(problem)
    example = tiny_examples(problem, net, count=1)[0]
    for index in problem.sampler.draws:
        drawn = example.inputs[f"noise.{index}"]
        for picture in range(2):
            shape = (1, *drawn.shape[1:])
            wanted = draw_noise(FIRST_NOISE + picture, shape, [index])[index]
            assert torch.equal(drawn[picture : picture + 1], torch.from_numpy(wanted))
    gates = rows_on(problem, 0, 2)
    subnet = problem.subnet(gates, {})
    cases = (
        (SubNet.dense(subnet.timesteps, subnet.blocks, num_inference_steps=4), example.dense),
        (
            subnet,
            run_hard(net, subnet, example.inputs),
        ),
    )
    for one, found in cases:
        plan = run_passes(unroll(problem.traced.graph, one, problem.sampler))
        wanted = interpret(plan, problem.traced, example.inputs)
        assert relative(found.numpy(), wanted.numpy()) <= TOLERANCE
    assert 0.4 < problem.cost.kept(gates) < 0.6
