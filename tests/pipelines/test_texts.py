"""Texts that are more than words, from the export directory alone, against diffusers' pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.common.warn import DipgoWarning
from dipgo.export import export
from dipgo.models.family import Geometry
from dipgo.models.prompts import encode_prompts
from dipgo.models.source import load_source
from dipgo.run.__main__ import main as run
from dipgo.run.pipeline import Pipeline
from tests.support.tiny_pipeline import TOKENS, WIDTH

LATENTS = 1e-5
"""Relative L2, float32 kernels of another library, after two steps."""
STEPS = 2
PROMPTS = [
    "a <cat> and a <cat>",
    "sks, 漢字",
    "👩\u200d🚀\x00 “naïve”",
    "",
    "<cat> " * TOKENS,
]
LONG = "red " * TOKENS


class Case:
    """A pipeline with two textual inversions and masks, and its export."""

    def __init__(self, saved: Path, folder: Path) -> None:
        self.reference: Any = StableDiffusionPipeline.from_pretrained(saved, safety_checker=None)
        self.reference.set_progress_bar_config(disable=True)
        self.reference.text_encoder.config.use_attention_mask = True
        generator = torch.Generator().manual_seed(0)
        for name, vectors in (("<cat>", 3), ("sks", 1)):
            embedding = torch.randn(vectors, WIDTH, generator=generator)
            self.reference.load_textual_inversion({name: embedding}, token=name)
        self.out = export(self.reference, "dense", folder / "out", steps=STEPS)
        self.pipeline = Pipeline.from_export(self.out, threads=1)


@pytest.fixture(scope="module")
def case(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tiny_pipeline, tmp_path_factory.mktemp("texts"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dipgo.common.warn.DipgoWarning")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_pictures_are_those_of_diffusers(case: Case, prompt: str) -> None:
    texts = {"prompt": prompt, "negative_prompt": f"{prompt[::-1]} <cat>"}
    found = case.pipeline(**texts, seed=3, output_type="latent").images
    expected = case.reference(
        **texts,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images.numpy()
    assert np.linalg.norm(found - expected) < LATENTS * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dipgo.common.warn.DipgoWarning")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_search_reads_the_same(case: Case, prompt: str) -> None:
    source = load_source(case.reference)
    found = encode_prompts(source, [prompt], Geometry(tokens=source.tokens))
    expected, none = case.reference.encode_prompt(prompt, "cpu", 1, True)
    assert torch.equal(found["encoder_hidden_states"], torch.cat([none, expected]))


@pytest.mark.slow
def test_what_is_cut_is_said(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a program by a warning, in a command by a line; once, and for negative prompts too."""
    line = r"^prompt 'red red .*': the text encoder takes 16 tokens; left out: '(re)?d( red)+'$"
    with pytest.warns(DipgoWarning, match=line):
        case.pipeline(LONG, num_images_per_prompt=2, output_type="latent")
    with pytest.warns(DipgoWarning, match=r"^negative_prompt 'red .*left out"):
        case.pipeline("red", negative_prompt=LONG, output_type="latent")
    source = load_source(case.reference)
    with pytest.warns(DipgoWarning, match=line):
        encode_prompts(source, [LONG], Geometry(tokens=source.tokens))
    files = ["--latents", str(tmp_path / "latents.npy")]
    assert run_command(run, [str(case.out), "--prompt", LONG, *files]) == 0
    said = [one for one in capsys.readouterr().err.splitlines() if one.startswith("warning: ")]
    assert len(said) == 1
    assert said[0].startswith("warning: prompt 'red red")
    assert run_command(run, [str(case.out), "--prompt", "red", *files]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.slow
def test_half_a_character_is_no_text(case: Case) -> None:
    """Python holds bytes that are no UTF-8 so, as arguments of a command and names of files."""
    for texts in ({"prompt": "a\udc80"}, {"prompt": "a", "negative_prompt": "\ud83d"}):
        with pytest.raises(DipgoError, match=r"found bytes that are not UTF-8"):
            case.pipeline(**texts)
