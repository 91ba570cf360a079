"""LoRAs: fused before tracing, told apart in the manifest, refused where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from dipgo.common.errors import DipgoError
from dipgo.compiler.request import silent
from dipgo.engines import load
from dipgo.export import export
from dipgo.export.dense_twin import export_dense_twin
from dipgo.ir.manifest.file import read_manifest
from dipgo.models import lora as lora_module
from dipgo.models.source import load_source
from dipgo.run.pipeline import Pipeline
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import WIDTH, save_tiny_pipeline

TOLERANCE = 1e-4
"""Relative L2, float32 kernels of another library, after four steps."""
STEPS, SCALE, PROMPT, RANK = 4, 4.0, "a red circle", 3
ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn"


def _pair(module: str, inputs: int, outputs: int) -> dict[str, torch.Tensor]:
    """A change of rank RANK to the weight of one module, in diffusers' form."""
    return {
        f"{module}.lora_A.weight": torch.randn(RANK, inputs),
        f"{module}.lora_B.weight": torch.randn(outputs, RANK) / RANK,
    }


def _save(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    save_file(dict(tensors), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("lora") / "pipeline")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tensors = _pair(f"{ATTENTION}.to_k", WIDTH, 32) | _pair(f"{ATTENTION}.to_q", 32, 32)
    return _save(tmp_path / "style.safetensors", tensors | _pair(f"{TEXT}.q_proj", WIDTH, WIDTH))


def _own_latents(pipeline: Any, noise: torch.Tensor) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    latents: torch.Tensor = pipeline(
        PROMPT,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        output_type="latent",
    ).images
    return latents


@pytest.mark.slow
@torch.no_grad()
def test_an_export_gives_the_latents_of_the_pipeline_with_its_lora(
    folder: Path, lora: Path, tmp_path: Path
) -> None:
    """Of denoiser and text encoder; the pipeline computes with the LoRA beside the weights."""
    noise = torch.randn(1, 4, 16, 16)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    without = _own_latents(pipeline, noise)
    pipeline.load_lora_weights(str(lora), adapter_name="style")
    pipeline.set_adapters(["style"], 0.5)
    expected = _own_latents(pipeline, noise)
    out = export(folder, "dense", tmp_path / "out", steps=STEPS, loras=[(lora, 0.5)])
    found = Pipeline.from_export(out)(
        PROMPT, latents=noise.numpy(), guidance_scale=SCALE, output_type="latent"
    ).images
    error = relative_error(torch.from_numpy(found), expected)
    print(f"relative error {error:.1e}; of the LoRA {relative_error(without, expected):.1e}")
    assert error < TOLERANCE < 1e-2 < relative_error(without, expected)
    (record,) = read_manifest(out).model.loras
    assert (record.name, record.scale, len(record.sha256)) == ("style.safetensors", 0.5, 64)
    with pytest.raises(DipgoError, match=r"with LoRAs in its weights: style.safe"):
        export_dense_twin(out, str(folder), tmp_path / "dense", silent)


@torch.no_grad()
def test_several_are_fused_and_the_users_pipeline_stays(folder: Path, lora: Path) -> None:
    """W + 0.5 B A + 2 B A, as a sum computed here."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    before = {key: one.clone() for key, one in pipeline.unet.state_dict().items()}
    source = load_source(pipeline, [(lora, 0.5), (str(lora), 2.0)])
    name = f"{ATTENTION.removeprefix('unet.')}.to_k"
    tensors = dict(_read(lora))
    change = tensors[f"unet.{name}.lora_B.weight"] @ tensors[f"unet.{name}.lora_A.weight"]
    found = source.denoiser.state_dict()
    assert set(found) == set(before)
    wanted = before[f"{name}.weight"] + 2.5 * change
    assert torch.allclose(found[f"{name}.weight"], wanted, atol=1e-5)
    assert all(torch.equal(one, before[key]) for key, one in pipeline.unet.state_dict().items())
    assert [one.scale for one in source.loras] == [0.5, 2.0]


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


BIASES = {
    "where the layer has one": ("to_out.0",),
    "where the layer has none": ("to_q",),
    "on both": ("to_q", "to_out.0"),
}


@torch.no_grad()
@pytest.mark.parametrize("beside", ["", "to_k"], ids=["alone", "beside one without"])
@pytest.mark.parametrize("name", BIASES)
def test_biases_are_fused(folder: Path, name: str, beside: str, tmp_path: Path) -> None:
    """diffusers itself does not fuse those of layers without one, nor load them beside others."""
    torch.manual_seed(1)
    tensors, biased = {}, BIASES[name]
    for layer in filter(None, (*biased, beside)):
        tensors |= _pair(f"{ATTENTION}.{layer}", 32, 32)
    biases = {layer: torch.randn(32) for layer in biased}
    files = {f"{ATTENTION}.{layer}.lora_B.bias": bias for layer, bias in biases.items()}
    path = _save(tmp_path / "biased.safetensors", tensors | files)
    before = DiffusionPipeline.from_pretrained(folder).unet.state_dict()
    found = load_source(folder, [(path, 0.5)]).denoiser.state_dict()
    module = ATTENTION.removeprefix("unet.")
    for layer in filter(None, (*biased, beside)):
        key = f"{module}.{layer}"
        a, b = (tensors[f"unet.{key}.lora_{side}.weight"] for side in "AB")
        assert torch.allclose(
            found[f"{key}.weight"], before[f"{key}.weight"] + b @ a / 2, atol=1e-5
        )
        bias = before.get(f"{key}.bias", torch.zeros(32)) + biases.get(layer, 0) / 2
        assert torch.allclose(found.get(f"{key}.bias", torch.zeros(32)), bias, atol=1e-5)


FOREIGN = {
    "the first half": {f"{ATTENTION}.to_q.lora_A.weight": torch.ones(RANK, 32)},
    "the second half": {f"{ATTENTION}.to_q.lora_B.weight": torch.ones(32, RANK)},
    "a bias of another width": _pair(f"{ATTENTION}.to_out.0", 32, 32)
    | {f"{ATTENTION}.to_out.0.lora_B.bias": torch.ones(31)},
    "a number": {"unet.nowhere.alpha": torch.tensor(1.0)},
    "a norm": {"unet.conv_norm_out.lora_A.weight": torch.ones(3, 4)},
    "another module": _pair("unet.down_blocks.9.attentions.0.proj", 8, 8),
    "another width": _pair(f"{ATTENTION}.to_q", 16, 32),
    "another width out": _pair(f"{ATTENTION}.to_q", 32, 16),
    "another part": _pair("transformer.blocks.0.attn1.to_q", 32, 32),
    "no LoRA": {"unet.conv_in.weight": torch.zeros(1, 1)},
    "weight-decomposed": _pair(f"{ATTENTION}.to_q", 32, 32)
    | {f"{ATTENTION}.to_q.dora_scale": torch.ones(1, 1)},
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_lora_for_another_model_is_refused(
    folder: Path, lora: Path, name: str, beside: bool, tmp_path: Path
) -> None:
    """One line that names a key of it, also where the other keys fit."""
    fitting = {key: one for key, one in _read(lora).items() if "to_k" in key} if beside else {}
    path = _save(tmp_path / "other.safetensors", {**fitting, **FOREIGN[name]})
    with pytest.raises(DipgoError) as error:
        load_source(folder, [path])
    where, _ = str(error.value).split(": found ", 1)
    key = where.removeprefix("loras other.safetensors, ")
    assert key in {**fitting, **FOREIGN[name]}
    assert "\n" not in str(error.value)
    assert "use a LoRA that was made for this model" in str(error.value)


def test_files_that_are_no_lora(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DipgoError, match=r"^loras .*text.safetensors: found .*safetensors format"):
        load_source(folder, [tmp_path / "text.safetensors"])
    with pytest.raises(DipgoError, match=r"^loras .*missing: found .*check the path"):
        load_source(folder, [tmp_path / "missing"])
    with pytest.raises(DipgoError, match=r"^loras: found arch:sd15, which is no pipeline"):
        load_source("arch:sd15", [tmp_path / "missing"])


def test_without_peft(folder: Path, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `find_spec` says that it is not there."""
    monkeypatch.setattr(lora_module, "find_spec", lambda name: None)
    with pytest.raises(DipgoError, match=r"^loras: found no package peft; .* pip install .\.\[lo"):
        load_source(folder, [lora])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.5", ("a.safetensors", 0.5)),
        ("a:b.safetensors", ("a:b.safetensors", 1.0)),
        ("a:b.safetensors:-2", ("a:b.safetensors", -2.0)),
    ],
)
def test_the_argument(text: str, expected: tuple[str, float]) -> None:
    from dipgo.models.options import lora as parse

    assert parse(text) == expected


@pytest.mark.parametrize("text", ["a.safetensors:nan", ":0.5"])
def test_scales_that_are_none(text: str) -> None:
    from dipgo.models.options import lora as parse

    with pytest.raises(ValueError, match=r"^$"):
        parse(text)


@pytest.mark.slow
def test_an_export_runs_as_any(folder: Path, lora: Path, tmp_path: Path) -> None:
    """The graphs hold no more than those of the model alone."""
    plain = load(export(folder, "dense", tmp_path / "plain", steps=1)).export
    fused = load(export(folder, "dense", tmp_path / "fused", steps=1, loras=[lora])).export
    assert str(plain.plan) == str(fused.plan)
    assert plain.manifest.model.config_sha256 == fused.manifest.model.config_sha256
    assert plain.manifest.model != fused.manifest.model


WAYS: dict[str, Any] = {
    "loaded": lambda pipeline: None,
    "scaled": lambda pipeline: pipeline.set_adapters(["own"], 0.5),
    "fused": lambda pipeline: pipeline.fuse_lora(lora_scale=0.7, components=["unet"]),
    "off": lambda pipeline: pipeline.disable_lora(),
    "two, of which one acts": lambda pipeline: _load_second(pipeline, ["own"], [1.5]),
    "two": lambda pipeline: _load_second(pipeline, ["own", "second"], [1.5, -0.5]),
}
"""What may have been done to a pipeline with an adapter."""


def _load_second(pipeline: Any, names: list[str], weights: list[float]) -> None:
    second = _pair(f"{ATTENTION}.to_k", WIDTH, 32) | _pair(f"{TEXT}.v_proj", WIDTH, WIDTH)
    pipeline.load_lora_weights(second, adapter_name="second")
    pipeline.set_adapters(names, weights)


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
def test_adapters_that_are_loaded_act_beside_further_loras(
    folder: Path, lora: Path, tmp_path: Path, way: str
) -> None:
    """Failed at 21ce821 for 4 of 6: `loras` threw away all that the pipeline had been loaded with.

    What `loras` adds is the same with and without them.
    """
    torch.manual_seed(1)
    own = _pair(f"{ATTENTION}.to_k", WIDTH, 32) | _pair(f"{TEXT}.q_proj", WIDTH, WIDTH)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    plain = load_source(folder), load_source(folder, [(lora, 0.5)])
    pipeline.load_lora_weights(_save(tmp_path / "own.safetensors", own), adapter_name="own")
    WAYS[way](pipeline)
    ids = torch.arange(WIDTH // 2)[None]
    before = _answers(pipeline, ids)
    added = load_source(pipeline, [(lora, 0.5)])
    assert {record.name for record in load_source(pipeline).loras} == ACTING.get(way, {"own"})
    assert {record.name for record in added.loras} == {*ACTING.get(way, {"own"}), lora.name}
    changes = [_weights(source.pipeline) for source in (*plain, added)]
    for key, weight in changes[2].items():
        change = changes[1][key] - changes[0][key]
        effective = _effective(pipeline, key)
        assert torch.allclose(weight, effective + change, atol=1e-5), key
    assert all(map(torch.equal, before, _answers(pipeline, ids)))


ACTING: dict[str, set[str]] = {"off": set(), "two": {"own", "second"}}


def _answers(pipeline: Any, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    hidden = pipeline.text_encoder(ids)[0]
    return hidden, pipeline.unet(torch.ones(1, 4, 16, 16), 10, hidden).sample


def _weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part in ("unet", "text_encoder")
        for name, tensor in getattr(pipeline, part).state_dict().items()
    }


def _effective(pipeline: Any, key: str) -> torch.Tensor:
    """The weight with which a layer computes, adapters included: its answers to a basis."""
    module = pipeline
    *path, name = key.split(".")
    for step in path:
        module = getattr(module, step)
    if name != "weight" or not hasattr(module, "base_layer"):
        return getattr(getattr(module, "base_layer", module), name)
    answers = module(torch.eye(module.in_features))
    bias = module.base_layer.bias
    return (answers - (0 if bias is None else bias)).T
