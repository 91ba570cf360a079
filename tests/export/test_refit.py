"""Refitting: an export with another model's weights is that model's export, byte for byte."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
)
from safetensors.torch import save_file

import dipgo.refit
from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.probe import probe
from dipgo.engines import load
from dipgo.export import export, refit
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.models.source import load_source
from tests.support.random_subnets import subnet_with_filters
from tests.support.rare import rare_unless
from tests.support.schedulers import ddim_for
from tests.support.tiny_pipelines import BUILDERS, save_pipeline
from tests.support.zoo import UNGUIDED, ZOO, case, traced_case

STEPS = 2
ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn"


def _source(name: str, seed: int | None) -> Source:
    """A model of the zoo; without a seed with weights as they are made: equal ones, zeros, ones."""
    torch.manual_seed(0)
    denoiser = ZOO[name].build().eval().requires_grad_(False)
    if seed is not None:
        _scatter(denoiser, seed)
    scheduler = ddim_for(name)
    return Source("zoo", denoiser, ZOO[name].family, scheduler, 8, tokens=7)


def _scatter(module: torch.nn.Module, seed: int) -> None:
    """Other weights of the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.05 * noise.to(parameter.dtype)


def _timesteps(steps: int) -> tuple[float, ...]:
    return probe(DDIMScheduler(clip_sample=False), steps).timesteps


def _files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def _assert_same(found: Path, expected: Path) -> None:
    one, other = _files(found), _files(expected)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    rare_unless(
        lambda name, precision: name in ("asymmetric", "dit", "sdxl", "svd"),
        zip(ZOO, cycle(("fp32", "fp16", "bf16"))),
    ),
)
def test_every_model_of_the_zoo(name: str, precision: str, tmp_path: Path) -> None:
    """From weights as they are made, of which an optimiser of graphs could see much."""
    options: dict[str, Any] = {"steps": STEPS, "precision": precision}
    options["guidance"] = name not in UNGUIDED
    first = export(_source(name, None), "dense", tmp_path / "first", **options)
    expected = export(_source(name, 1), "dense", tmp_path / "expected", **options)
    found = refit(first, _source(name, 1), tmp_path / "found")
    _assert_same(found, expected)
    weights = "weights.safetensors"
    assert _files(first)[weights] != _files(found)[weights]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", rare_unless(lambda name: name in ("sd", "sd3_t5"), ["sd", *BUILDERS])
)
def test_whole_pipelines(name: str, tmp_path: Path) -> None:
    """Text encoders and VAE too, in fp16; from a path and from memory."""
    path = save_pipeline(name, tmp_path)
    other = load_source(path).pipeline
    for index, part in enumerate(other.components.values()):
        if isinstance(part, torch.nn.Module):
            _scatter(part, index)
    other.save_pretrained(tmp_path / "other")
    shutil.copyfile(path / "model_index.json", tmp_path / "other" / "model_index.json")
    options: dict[str, Any] = {"steps": STEPS, "precision": "fp16", "batch": 2}
    first = export(path, "dense", tmp_path / "first", **options)
    expected = export(tmp_path / "other", "dense", tmp_path / "expected", **options)
    _assert_same(refit(first, tmp_path / "other", tmp_path / "found"), _renamed(expected, "other"))


def _renamed(out: Path, name: str) -> Path:
    assert f'"source": "{name}"' in (out / "plan.json").read_text()
    return out


def _filters(source: Source, tmp_path: Path, make: Callable[..., Path]) -> Path:
    subnet = subnet_with_filters(case("asymmetric", "block").traced.graph, 5, halves=True)
    return make(source, subnet, tmp_path, height=64, width=64, also_sizes=[(128, 64)])


def _pruned(source: Source, tmp_path: Path, make: Callable[..., Path]) -> Path:
    """Half of the gates on, deltas among the backups."""
    blocks = case("asymmetric", "layer").traced.graph.blocks
    gates = np.random.default_rng(0).random((6, len(blocks))) < 0.5
    gates[0] = True
    backup = tuple("delta" if ".attentions." in block.name else "output" for block in blocks)
    names = tuple(block.name for block in blocks)
    return make(source, SubNet(6, _timesteps(6), names, gates, backup), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("build", [_filters, _pruned], ids=["filters and sizes", "pruned"])
def test_subnets(build: Callable[..., Path], tmp_path: Path) -> None:
    """The SubNet is not given again: its plan and its filters stay."""
    first = build(_source("asymmetric", None), tmp_path / "first", export)
    expected = build(_source("asymmetric", 1), tmp_path / "expected", export)
    _assert_same(refit(first, _source("asymmetric", 1), tmp_path / "found"), expected)


@pytest.mark.slow
def test_lanes_and_older_operators(tmp_path: Path) -> None:
    """Calls of one block side by side, in the graphs of the target openvino."""
    blocks = ("conv_in", "down_blocks.*", "mid_block", "up_blocks.*")
    graph = traced_case("three_levels", blocks).traced.graph
    subnet = _decoders_only(graph.blocks)
    options: dict[str, Any] = {"target": "openvino"}
    first = export(_source("three_levels", None), subnet, tmp_path / "first", **options)
    assert any(one.stacked for one in load(first).export.manifest.segments)
    expected = export(_source("three_levels", 1), subnet, tmp_path / "expected", **options)
    _assert_same(refit(first, _source("three_levels", 1), tmp_path / "found"), expected)


def _decoders_only(blocks: Any) -> SubNet:
    """Encoders at every third step."""
    names = tuple(block.name for block in blocks)
    gates = np.array([[not s % 3 or name.startswith("up") for name in names] for s in range(6)])
    return SubNet(6, _timesteps(6), names, gates, ("output",) * len(names))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline("sd", tmp_path_factory.mktemp("refit"))


@pytest.fixture(scope="module")
def first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(folder, "dense", tmp_path_factory.mktemp("first") / "out", steps=STEPS)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tensors = {}
    for module in (f"{ATTENTION}.to_k", f"{TEXT}.q_proj"):
        tensors[f"{module}.lora_A.weight"] = torch.randn(3, 32)
        tensors[f"{module}.lora_B.weight"] = torch.randn(32, 3)
    save_file(tensors, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


@pytest.mark.slow
def test_a_lora_and_back(folder: Path, first: Path, lora: Path, tmp_path: Path) -> None:
    """By the command: with a LoRA, then in place with none."""
    expected = export(folder, "dense", tmp_path / "with", steps=STEPS, loras=[(lora, 0.5)])
    out = tmp_path / "found"
    given = [first, "--model", folder, "--lora", f"{lora}:0.5", "--out", out]
    assert run_command(dipgo.refit.main, list(map(str, given))) == 0
    _assert_same(out, expected)
    given = [out, "--model", folder, "--out", out, "--force"]
    assert run_command(dipgo.refit.main, list(map(str, given))) == 0
    _assert_same(out, first)


@pytest.mark.slow
def test_pictures_to_start_from(folder: Path, tmp_path: Path) -> None:
    """The VAE's encoder has its weights, too."""
    other = DiffusionPipeline.from_pretrained(folder)
    _scatter(other.vae, 0)
    other.save_pretrained(tmp_path / "other")
    options: dict[str, Any] = {"steps": 4, "strength": 0.5, "scheduler": "ddim"}
    found = export(folder, "dense", tmp_path / "found", **options)
    expected = export(tmp_path / "other", "dense", tmp_path / "expected", **options)
    _assert_same(refit(found, tmp_path / "other", found, force=True), expected)


def test_programs_of_pytorch(tmp_path: Path) -> None:
    """They hold no weights: what was captured runs with those that are there now."""
    first = export(_source("dit", None), "dense", tmp_path / "one", steps=STEPS, target="torch")
    found = refit(first, _source("dit", 1), tmp_path / "two")
    runner = load(found, target="torch", provider="cpu")
    noise = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    given = {"latents": noise, "class_labels": np.array([10, 3]), "guidance_scale": 3.0}
    expected = load(found).run(given)["latents"]
    assert np.abs(runner.run(given)["latents"] - expected).max() < 1e-5 * np.abs(expected).max()
    before = load(first).run(given)["latents"]
    assert np.abs(before - expected).max() > 1e-2 * np.abs(expected).max()
    assert not (
        refit(first, _source("dit", 1), tmp_path / "3", without_engines=True) / "engines"
    ).exists()


@pytest.mark.slow
def test_packed_latents_of_another_size(tmp_path: Path) -> None:
    """The manifest tells rows and columns, of which the model's own size is another."""
    absent = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

    def pipeline(seed: int | None) -> FluxPipeline:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        transformer = _source("flux", seed).denoiser
        return FluxPipeline(transformer=transformer, scheduler=scheduler, **dict.fromkeys(absent))

    options: dict[str, Any] = {"steps": STEPS, "height": 64, "width": 96}
    first = export(pipeline(None), "dense", tmp_path / "first", **options)
    expected = export(pipeline(1), "dense", tmp_path / "expected", **options)
    _assert_same(refit(first, pipeline(1), tmp_path / "found"), expected)


# What is refused; nothing is written then.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: p.register_modules(
                scheduler=type(p.scheduler).from_config(
                    p.scheduler.config, prediction_type="v_prediction"
                )
            ),
            "model, scheduler.prediction_type: found 'v_prediction' in .*; expected 'epsilon'",
        ),
        (
            lambda p: setattr(p, "unet", type(p.unet).from_config(p.unet.config, act_fn="gelu")),
            "model: found UNet2DConditionModel of configuration .*; expected",
        ),
        (
            lambda p: p.text_encoder.resize_token_embeddings(300),
            r"model, weight text_encoder.*: found a shape of \[300, 32\], other than when it",
        ),
    ],
    ids=["scheduler", "architecture", "vocabulary"],
)
def test_other_models(
    change: Callable[[Any], Any], words: str, folder: Path, first: Path, tmp_path: Path
) -> None:
    other = DiffusionPipeline.from_pretrained(folder)
    change(other)
    with pytest.raises(DipgoError, match=words):
        refit(first, other, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_scheduler_of_the_pipeline(folder: Path, first: Path, tmp_path: Path) -> None:
    """The plan has its own scheduler; only what it takes of the pipeline's must be the same."""
    other = DiffusionPipeline.from_pretrained(folder)
    other.scheduler = EulerDiscreteScheduler.from_config(other.scheduler.config)
    _assert_same_but_source(refit(first, other, tmp_path / "out"), first)


def _assert_same_but_source(found: Path, expected: Path) -> None:
    one, other = _files(found), _files(expected)
    assert [name for name in one if one[name] != other[name]] == ["plan.json"]


def test_a_graph_that_is_not_the_exports(folder: Path, first: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(first, tmp_path / "damaged"))
    graph = next(damaged.glob("seg*.onnx"))
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    with pytest.raises(DipgoError, match=r"seg\d.onnx: found another file than was exported"):
        refit(damaged, folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_destination_that_is_there(folder: Path, first: Path, tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match="something of that name"):
        refit(first, folder, tmp_path)


def test_what_is_no_export(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"plan\.json"):
        refit(tmp_path, folder, tmp_path / "out")


def test_weights_that_a_narrow_type_does_not_hold(tmp_path: Path) -> None:
    """Infinity in fp16 is told of, by segment, as when exporting."""
    first = export(_source("dit", None), "dense", tmp_path / "one", steps=STEPS, precision="fp16")
    large = _source("dit", 1)
    large.denoiser.transformer_blocks[0].ff.net[2].weight.data *= 1e8
    with pytest.raises(DipgoError, match=r"segment .*infinity or NaN"):
        refit(first, large, tmp_path / "two")
    refit(first, large, tmp_path / "two", check_numerics=False)


def test_an_export_of_an_earlier_version(folder: Path, first: Path, tmp_path: Path) -> None:
    """Its graphs may hold numbers that are made of weights."""
    old = Path(shutil.copytree(first, tmp_path / "old"))
    text = (old / "plan.json").read_text()
    assert '"refittable": true' in text
    (old / "plan.json").write_text(text.replace('"refittable": true', '"refittable": false'))
    with pytest.raises(DipgoError, match=r"an export of an earlier version.*export again"):
        refit(old, folder, tmp_path / "out")


def test_a_denoiser_for_a_whole_pipeline(folder: Path, first: Path, tmp_path: Path) -> None:
    """And a pipeline for a denoiser."""
    whole = load_source(folder)
    alone = replace(whole, pipeline=None)
    words = "with nothing around its denoiser; expected a model with text encoder, vae decoder"
    with pytest.raises(DipgoError, match=words):
        refit(first, alone, tmp_path / "out")
    denoiser = export(alone, "dense", tmp_path / "denoiser", steps=STEPS)
    with pytest.raises(DipgoError, match=r"with text encoder, vae decoder .* model with nothing"):
        refit(denoiser, whole, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser"]


def test_a_part_with_more_weights(folder: Path, first: Path, tmp_path: Path) -> None:
    """Of the same names and more, which the old graph would leave out without a word."""
    other = DiffusionPipeline.from_pretrained(folder)
    config = copy.deepcopy(other.text_encoder.config)
    config.num_hidden_layers += 1
    other.register_modules(text_encoder=type(other.text_encoder)(config).eval())
    words = r"weight text_encoder\..*layers\.2\..*: found a weight that the graph does not read"
    with pytest.raises(DipgoError, match=words):
        refit(first, other, tmp_path / "out")
