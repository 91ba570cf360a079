"""ONNX Runtime on exports against module hooks and diffusers; same input, same bytes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from dipgo.compiler.sampler.probe import probe
from dipgo.engines import load
from dipgo.export import export
from dipgo.export.lower.onnx import lower
from dipgo.ir.graph import BlockGraph
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.subnet.backups import BACKUPS
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.eager import run_eagerly
from tests.support.random_subnets import weigh_rows
from tests.support.rare import rare_unless
from tests.support.schedulers import ddim_for
from tests.support.zoo import CASES, EVERY_WAY, GUIDANCE_CASES, ZOO, case, is_common

TOLERANCE = 1e-3
"""Relative L2, float32 kernels of another library, after all steps."""
STEPS = 4
COMMON = (*EVERY_WAY, "sdxl", "sd3", "flux", "svd", "controlnet", "unconditional", "sdxl_lcm")
"""A model of each architecture."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "grain", "guidance"),
    rare_unless(
        lambda name, grain, guidance: is_common(name, grain, guidance) and name in COMMON,
        GUIDANCE_CASES,
    ),
)
def test_engines_equal_module_hooks(
    name: str, grain: str, guidance: bool, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """Twenty random gate tables, each through ONNX and ONNX Runtime."""
    chosen, scheduler = case(name, grain, guidance), ddim_for(name)
    seed = CASES.index((name, grain))
    subnet = _random_subnet(chosen.traced.graph, scheduler, seed)
    subnet = weigh_rows(random.Random(seed), subnet, halves=guidance)
    source = Source("zoo", chosen.denoiser, ZOO[name].family, scheduler, 8, tokens=7)
    export(source, subnet, tmp_path / "out", guidance=guidance)
    found = load(tmp_path / "out").run({k: v.numpy() for k, v in chosen.inputs.items()})
    expected = run_eagerly(chosen, scheduler, subnet)
    error = relative_error(torch.from_numpy(found["latents"]), expected)
    record_property("relative_error", error)
    print(f"{name} {grain}: relative L2 {error:.1e}")
    assert error < TOLERANCE


def _random_subnet(graph: BlockGraph, scheduler: object, seed: int) -> SubNet:
    """Half of the gates on, none in the last row; of every three blocks one of each backup.

    Blocks that cannot have it have `output`.
    """
    sampler = probe(scheduler, STEPS)
    names, words = tuple(block.name for block in graph.blocks), tuple(BACKUPS)
    backup = tuple(
        words[index % len(words)] if graph.carriers[block.name] else "output"
        for index, block in enumerate(graph.blocks)
    )
    gates = np.random.default_rng(seed).random((STEPS, len(names))) < 0.5
    gates[0], gates[-1] = True, False
    return SubNet(STEPS, sampler.timesteps, names, gates, backup)


@pytest.fixture(scope="module")
def subnet_path(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeepCache-like SubNet for the tiny pipeline: all at even steps, else the last up block."""
    scheduler = DDIMScheduler.from_config(
        DiffusionPipeline.from_pretrained(tiny_pipeline).scheduler.config
    )
    timesteps = probe(scheduler, 6).timesteps
    blocks = (*(f"down_blocks.{i}" for i in range(4)), "mid_block")
    blocks = (*blocks, *(f"up_blocks.{i}" for i in range(4)))
    gates = np.zeros((6, 9), dtype=bool)
    gates[::2], gates[:, -1] = True, True
    path = tmp_path_factory.mktemp("subnet") / "subnet.json"
    SubNet(6, timesteps, blocks, gates, ("output",) * 9).save(path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("lower_anew")
def test_exporting_and_running_twice_gives_the_same_bytes(
    tiny_pipeline: Path, subnet_path: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        export(tiny_pipeline, subnet_path, path, scheduler="ddim")
    first, second = ({file.name: file.read_bytes() for file in path.iterdir()} for path in paths)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    inputs = _inputs(tiny_pipeline)
    runner = load(paths[0])
    latents = [runner.run(inputs)["latents"].tobytes() for _ in range(2)]
    latents.append(load(paths[1]).run(inputs)["latents"].tobytes())
    assert len(set(latents)) == 1


def _inputs(tiny_pipeline: Path) -> dict[str, object]:
    generator = np.random.default_rng(0)
    width = DiffusionPipeline.from_pretrained(tiny_pipeline).text_encoder.config.hidden_size
    return {
        "latents": generator.standard_normal((1, 4, 16, 16)).astype(np.float32),
        "encoder_hidden_states": generator.standard_normal((2, 16, width)).astype(np.float32),
        "guidance_scale": 5.0,
    }


@pytest.mark.slow
def test_each_weight_is_stored_once(tiny_pipeline: Path, subnet_path: Path, tmp_path: Path) -> None:
    """Segments add no copies: the directory is the weights and little else."""
    export(tiny_pipeline, subnet_path, tmp_path / "out", scheduler="ddim")
    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.vae.decoder)
    weights = sum(p.numel() * 4 for part in parts for p in part.parameters())
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest.segments) > 1
    assert manifest.files["weights.safetensors"].nbytes < 1.02 * weights
    assert sum(file.stat().st_size for file in (tmp_path / "out").glob("*.onnx")) < 0.1 * weights


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_are_those_of_diffusers(tiny_pipeline: Path, tmp_path: Path, batch: int) -> None:
    """Prompt to pixels, three prompts in batches of `batch`, with the pipeline's own sampler."""
    export(tiny_pipeline, "dense", tmp_path / "out", steps=5, batch=batch)
    prompts = ["a large red circle", "green", "a small blue square at the left"]
    found = Pipeline.from_export(tmp_path / "out")(
        prompts, seed=7, guidance_scale=4.0, output_type="np"
    ).images
    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompts,
        num_inference_steps=5,
        guidance_scale=4.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images
    assert np.abs(found - expected).max() < TOLERANCE


def test_a_value_within_may_be_called_as_an_output_is() -> None:
    """`embedding`, `add` and `mul` are names of torch's operators, too."""

    class Sum(torch.nn.Module):
        def forward(self, mul: torch.Tensor) -> torch.Tensor:
            return (mul * 2 + 1).tanh()

    model = lower(Sum(), [torch.ones(2)], name="sum", inputs=["mul"], outputs=["add"])
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    (found,) = session.run(["add"], {"mul": np.array([0.0, 1.0], np.float32)})
    assert np.allclose(found, np.tanh([1.0, 3.0]))
