"""Text encoders as modules, and packed latents, against what diffusers' pipelines make."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    StableDiffusionPipeline,
)
from transformers import ByT5Tokenizer

from dipgo.common.errors import DipgoError
from dipgo.engines.launches import list_part_launches
from dipgo.engines.onnxruntime.executor import Executor
from dipgo.engines.onnxruntime.session import SessionSettings, make_session
from dipgo.export.lower.onnx import lower
from dipgo.export.parts import text_encoder_part, trace_part
from dipgo.export.tokenizer_files import save_tokenizers
from dipgo.ir.manifest.convert import tensor_records
from dipgo.ir.manifest.records import PartRecord
from dipgo.models.registry import find_text_encoding
from dipgo.models.text_encoding import TextEncoding, Tokens, count_tokens
from dipgo.models.vae import PackedVaeDecoder
from dipgo.run.latents import draw_latents, noise_of
from dipgo.run.tokens import TextTokens
from tests.support.tiny_pipeline import TOKENS, WIDTH, tiny_text_encoder, tiny_tokenizer, tiny_vae
from tests.support.tiny_pipelines import tiny_t5, tiny_t5_tokenizer

TEXTS = ["", "  A large RED circle ", "green " * 40, "two <cat>s, 漢字 👩\u200d🚀"]
TOLERANCE = 2e-5
"""Largest absolute difference of hidden states of about 1."""


def _pixart(kind: Any, folder: Path) -> Any:
    return kind(
        tokenizer=tiny_t5_tokenizer(),
        text_encoder=tiny_t5(WIDTH),
        vae=tiny_vae(),
        transformer=None,
        scheduler=None,
    )


def _flux(folder: Path) -> FluxPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(folder / "vocabulary"),
        text_encoder_2=tiny_t5(2 * WIDTH),
        tokenizer_2=tiny_t5_tokenizer(),
        transformer=None,
    )


def _stable_diffusion(folder: Path, *, masked: bool) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(folder / "vocabulary"),
        unet=None,
        scheduler=EulerDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.text_encoder.config.use_attention_mask = masked
    vectors = torch.randn(3, WIDTH)  # one textual inversion of three tokens
    pipeline.load_textual_inversion({"<cat>": vectors}, token="<cat>")
    return pipeline


BUILDERS: dict[str, Any] = {
    "sd": lambda folder: _stable_diffusion(folder, masked=False),
    "sd_masked": lambda folder: _stable_diffusion(folder, masked=True),
    "pixart_alpha": lambda folder: _pixart(PixArtAlphaPipeline, folder),
    "pixart_sigma": lambda folder: _pixart(PixArtSigmaPipeline, folder),
    "flux": _flux,
}
LENGTHS = {"sd": TOKENS, "sd_masked": TOKENS, "pixart_alpha": 120, "pixart_sigma": 300, "flux": 512}


@torch.no_grad()
def _expected(name: str, pipeline: Any) -> dict[str, torch.Tensor]:
    if name == "flux":
        hidden, pooled, _ = pipeline.encode_prompt(TEXTS)
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}
    if name.startswith("sd"):
        hidden, _ = pipeline.encode_prompt(TEXTS, "cpu", 1, False)
        return {"encoder_hidden_states": hidden}
    length = LENGTHS[name]
    hidden, mask, *_ = pipeline.encode_prompt(TEXTS, False, max_sequence_length=length)
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", BUILDERS)
def test_a_module_gives_what_encode_prompt_gives(name: str, tmp_path: Path) -> None:
    """In torch with the pipeline's tokenizers, and as a graph with those of the export."""
    torch.manual_seed(0)
    pipeline = BUILDERS[name](tmp_path)
    assert count_tokens(pipeline) == LENGTHS[name]
    encoding = find_text_encoding(pipeline, LENGTHS[name])
    assert encoding is not None
    tokens = encoding.tokenize(TEXTS)
    results = encoding.module(*(tokens[one] for one in encoding.inputs))
    found = {**tokens, **dict(zip(encoding.outputs, results, strict=True))}
    expected = _expected(name, pipeline)
    for key, tensor in expected.items():
        assert (found[key].float() - tensor.float()).abs().max() == 0, key
    ours: dict[str, Any] = {}
    for record in save_tokenizers(encoding, tmp_path):
        ours |= TextTokens(str(tmp_path / record.file), record).encode(TEXTS)
    for key, tensor in tokens.items():
        assert np.array_equal(ours[key], tensor.numpy()), key
    graph = _run_graph(encoding, ours, tmp_path)
    for key, array in graph.items():
        assert np.abs(array - expected[key].numpy()).max() < TOLERANCE, key


def _run_graph(encoding: TextEncoding, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The part as the export lowers it, on ONNX Runtime."""
    import onnx_ir as ir

    part = trace_part(text_encoder_part(encoding, len(TEXTS)))
    names = ([one.name for one in part.inputs], [one.name for one in part.outputs])
    model = lower(part.module, part.examples, name="text", inputs=names[0], outputs=names[1])
    ir.save(model, folder / "text.onnx")
    record = PartRecord("text.onnx", tensor_records(part.inputs), tensor_records(part.outputs))
    settings = SessionSettings("cpu", 1)
    session = make_session(folder / "text.onnx", settings)
    executor = Executor(list_part_launches("text", record), {"text": session}, settings)
    held, _ = executor.run({name: given[name] for name in names[0]}, lambda step: None)
    found, offset = {}, 0
    for value in part.outputs:
        shape = value.type.shape
        found[value.name] = held[offset : offset + value.type.nbytes].view("f4").reshape(shape)
        offset += -(-value.type.nbytes // 256) * 256
    return found


@torch.no_grad()
def test_packed_latents_are_unpacked_before_decoding() -> None:
    """Of 32 x 16 latent pixels: 16 rows and 8 columns of 2 x 2."""
    vae = tiny_vae().eval()
    latents = torch.randn(2, 16 * 8, 16)
    pixels = {"height": 32 * 8, "width": 16 * 8, "vae_scale_factor": 8}
    unpacked = FluxPipeline._unpack_latents(latents, **pixels)
    expected = vae.decode(unpacked / vae.config.scaling_factor).sample
    assert torch.equal(PackedVaeDecoder(vae, (), 16, 8)(latents), expected)


def test_noise_of_packed_latents() -> None:
    drawn = torch.randn(2, 4, 32, 16, generator=torch.Generator("cpu").manual_seed(6))
    expected = FluxPipeline._pack_latents(drawn, 2, 4, 32, 16).numpy()
    assert np.abs(draw_latents(noise_of(6, 2), 2, (128, 16), (16, 8)) - expected).max() < 2e-6


def test_a_tokenizer_that_cannot_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow tokenizer of T5's is read by packages that may not be there."""

    def fail(tokenizer: Any) -> None:
        raise ImportError("\nT5Converter requires the protobuf library")

    module = importlib.import_module("transformers.convert_slow_tokenizer")
    monkeypatch.setattr(module, "convert_slow_tokenizer", fail)
    encoding = find_text_encoding(_pixart(PixArtAlphaPipeline, tmp_path), 8)
    assert encoding is not None
    slow = Tokens(ByT5Tokenizer(), "input_ids", 8)
    with pytest.raises(DipgoError, match=r"ByT5Tokenizer: found T5Converter .* fast tokenizer"):
        save_tokenizers(replace(encoding, tokens=(slow,)), tmp_path)
