"""`evaluate`: what a whole run reports, against independent computations, and what it keeps."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
)
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from scipy import linalg
from transformers import CLIPModel, CLIPProcessor

import dipgo.evaluate.__main__
from dipgo.common.cli import run_command
from dipgo.common.leftovers import NEW
from dipgo.evaluate.api import evaluate
from dipgo.evaluate.cache import Drawn, read_drawn
from dipgo.evaluate.draw import Progress
from dipgo.evaluate.judges.classifier import (
    Classifier,
    load_classifier,
)
from dipgo.evaluate.judges.frechet import ClassifierFeatures, classifier_distance
from dipgo.evaluate.metrics import interval, latent_error, to_tensor
from tests.support.independent_metrics import independent_psnr, independent_ssim
from tests.support.tiny_evaluation import (
    BATCH,
    GUIDANCE,
    HEADS,
    PAIRS,
    PROMPTS,
    SEED,
    command_words,
    evaluation_subnet,
)
from tests.support.tiny_pipeline import TOKENS, WIDTH

PICTURE_TOLERANCE = 1e-4  # of SSIM, and relative of dB, in float32

SAME_LATENTS = 1e-5  # relative; ONNX Runtime against PyTorch over three steps


class StoppedError(Exception):
    """Stands for a signal."""


@pytest.fixture(scope="module")
def stopped(inputs: Path) -> dict[str, int]:
    """The results, with their times, of a run that is stopped before its last export."""

    def stage(description: str) -> AbstractContextManager[object]:
        if description == f"export every, batch {BATCH}":
            raise StoppedError
        return nullcontext()

    subnets = {name: evaluation_subnet(name) for name in ("pruned", "every")}
    with pytest.raises(StoppedError):
        evaluate(
            inputs / "model",
            subnets,
            (3, "DDIMScheduler"),
            PROMPTS,
            cache=inputs / "out" / "cache",
            pairs=PAIRS,
            batch=BATCH,
            seed=SEED,
            guidance_scale=GUIDANCE,
            time_repeats=2,
            threads=1,
            progress=Progress(stage),
        )
    return _results(inputs / "out")


def _results(out: Path) -> dict[str, int]:
    """When each was written; exports are not results."""
    return {one.name: one.stat().st_mtime_ns for one in (out / "cache").iterdir() if one.is_file()}


@pytest.fixture(scope="module")
def out(inputs: Path, stopped: dict[str, int]) -> Path:
    """What a run writes that goes on where the stopped one was, with all that can be measured."""
    out = inputs / "out"
    arguments = command_words(inputs, out, time_repeats=2, clip_model=inputs / "clip")
    assert run_command(dipgo.evaluate.__main__.main, arguments) == 0
    return out


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def _by_name(report: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in (report["dense"], *report["subnets"])}


def _result_paths(out: Path) -> dict[str, Path]:
    """The pictures' files by name: they are written in this order."""
    paths = sorted((out / "cache").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    return dict(zip(("dense", "pruned", "every"), paths, strict=True))


def _drawn(out: Path) -> dict[str, Drawn]:
    return {name: read_drawn(path) for name, path in _result_paths(out).items()}


@pytest.mark.slow
def test_the_report_says_what_was_measured(report: dict[str, Any]) -> None:
    assert (report["format"], report["version"]) == ("dipgo.evaluation", 1)
    prompts = [*PROMPTS, PROMPTS[0]]
    expected = [{"prompt": prompt, "seed": SEED + i} for i, prompt in enumerate(prompts)]
    assert report["pairs"] == expected
    assert report["reference_pictures"] == 5
    assert [one["name"] for one in report["subnets"]] == ["pruned", "every"]
    assert {one["scheduler"] for one in _by_name(report).values()} == {"DDIMScheduler"}
    for one in _by_name(report).values():
        metrics = one["metrics"]
        assert set(metrics) == {"ssim", "psnr_db", "latent_error", "caption", "clip"}
        assert {len(metric["values"]) for metric in metrics.values()} == {PAIRS}
        assert one["frechet"] > 0
        assert one["fid"] is None


def test_dense_is_like_itself(report: dict[str, Any]) -> None:
    results = _by_name(report)
    dense, every = results["dense"]["metrics"], results["every"]["metrics"]
    for metrics in (dense, every):
        assert metrics["ssim"]["values"] == pytest.approx([1.0] * PAIRS, abs=PICTURE_TOLERANCE)
        assert metrics["latent_error"]["values"] == pytest.approx([0.0] * PAIRS, abs=1e-6)
    assert dense["psnr_db"]["mean"] is None
    assert results["dense"]["time"]["speedup"] == 1
    assert results["every"]["cost"]["macs_of_dense"] == pytest.approx(1)
    assert 0.3 < results["pruned"]["cost"]["macs_of_dense"] < 0.99
    assert results["pruned"]["cost"]["macs_kept"] == results["pruned"]["cost"]["macs_of_dense"]
    assert results["pruned"]["metrics"]["ssim"]["mean"] < 1


def test_dense_draws_what_diffusers_draws(inputs: Path, out: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(inputs / "model", safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        [*PROMPTS, PROMPTS[0]],
        generator=[torch.Generator().manual_seed(SEED + i) for i in range(PAIRS)],
        num_inference_steps=3,
        guidance_scale=GUIDANCE,
        output_type="latent",
    ).images.numpy()
    error = latent_error(_drawn(out)["dense"].latents, latents).max()
    print(f"largest relative error of latents {error:.1e}")
    assert error < SAME_LATENTS


def test_metrics_are_those_of_the_pictures(out: Path, report: dict[str, Any]) -> None:
    dense, pruned = (_drawn(out)[name] for name in ("dense", "pruned"))
    metrics = _by_name(report)["pruned"]["metrics"]
    expected = {
        "ssim": [
            independent_ssim(*both) for both in zip(pruned.pictures, dense.pictures, strict=True)
        ],
        "psnr_db": [
            independent_psnr(*both) for both in zip(pruned.pictures, dense.pictures, strict=True)
        ],
        "latent_error": [
            np.sqrt(((z - d) ** 2).sum() / (d**2).sum())
            for z, d in zip(pruned.latents, dense.latents, strict=True)
        ],
    }
    for name, values in expected.items():
        assert metrics[name]["values"] == pytest.approx(values, rel=PICTURE_TOLERANCE)
        assert metrics[name]["mean"] == pytest.approx(np.mean(values), rel=PICTURE_TOLERANCE)


def test_the_difference_is_paired(report: dict[str, Any]) -> None:
    pruned, every = report["subnets"]
    first, second = (np.array(one["metrics"]["ssim"]["values"]) for one in (pruned, every))
    expected = interval(second - first)
    found = every["ssim_minus_first"]
    assert found == pytest.approx(
        {"mean": expected.mean, "low": expected.low, "high": expected.high}
    )
    assert pruned["ssim_minus_first"] is None


def test_captions_are_read_off_the_prompts(inputs: Path, out: Path, report: dict[str, Any]) -> None:
    classifier = load_classifier(inputs / "classifier")
    pictures = _drawn(out)["pruned"].pictures
    names = classifier.predict(to_tensor(pictures).float() / 127.5 - 1)
    prompts = [*PROMPTS, PROMPTS[0]]
    hits = {
        head: [name in prompt.split() for name, prompt in zip(names[head], prompts, strict=True)]
        for head in HEADS
    }
    pruned = _by_name(report)["pruned"]
    assert pruned["captions"] == {head: np.mean(hit) for head, hit in hits.items()}
    every_head = np.all(list(hits.values()), axis=0)
    assert pruned["metrics"]["caption"]["values"] == every_head.astype(float).tolist()


def test_frechet_distance(inputs: Path, out: Path, report: dict[str, Any]) -> None:
    classifier = load_classifier(inputs / "classifier")
    paths = sorted((inputs / "reference").glob("*.png"))
    reference = np.stack([np.asarray(Image.open(path)) for path in paths])
    pictures = _drawn(out)["pruned"].pictures
    expected = _frechet(classifier, pictures, reference)
    assert _by_name(report)["pruned"]["frechet"] == pytest.approx(expected, rel=1e-3)
    distance = classifier_distance(classifier, paths)
    assert distance(pictures) == distance(pictures)  # the reference is not counted twice
    assert distance(reference) == pytest.approx(0, abs=1e-3 * expected)


def _frechet(classifier: Classifier, *sets: NDArray[np.uint8]) -> float:
    """Heusel et al. 2017, equation 6, with scipy's matrix root."""
    first, second = (ClassifierFeatures(classifier)(to_tensor(one)).numpy() for one in sets)
    means = first.mean(0) - second.mean(0)
    covariances = [np.cov(one, rowvar=False) for one in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    return float(means @ means + np.trace(sum(covariances) - 2 * root.real))


def test_clip_score(inputs: Path, out: Path, report: dict[str, Any]) -> None:
    model = CLIPModel.from_pretrained(inputs / "clip")
    processor = CLIPProcessor.from_pretrained(inputs / "clip")
    pictures = [Image.fromarray(one) for one in _drawn(out)["pruned"].pictures]
    prompts = [*PROMPTS, PROMPTS[0]]
    assert max(map(len, prompts)) <= TOKENS
    with torch.no_grad():
        both = processor(text=prompts, images=pictures, return_tensors="pt", padding=True)
        found = model(**both)
    cosines = (found.image_embeds * found.text_embeds).sum(1).numpy()
    expected = np.maximum(100 * cosines, 0)
    assert expected.max() > 0
    values = _by_name(report)["pruned"]["metrics"]["clip"]["values"]
    assert values == pytest.approx(expected.tolist(), abs=1e-3)


def test_times_are_of_both_by_turns(report: dict[str, Any]) -> None:
    for one in report["subnets"]:
        time = one["time"]
        assert len(time["runs"]) == len(time["dense_runs"]) == 2
        ratios = [one / other for one, other in zip(time["dense_runs"], time["runs"], strict=True)]
        assert time["speedup"] == pytest.approx(median(ratios))
        assert time["speedup_interval"] == pytest.approx([min(ratios), max(ratios)])
        assert time["speedup_confidence"] == 1 - 0.5 ** (len(ratios) - 1)
    assert len(report["dense"]["time"]["runs"]) == 4


def test_a_lora_is_in_dense_and_in_the_subnets(
    inputs: Path, out: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    """Another model, so nothing of what is kept is taken."""
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    torch.manual_seed(0)
    tensors = {f"{module}.lora_A.weight": torch.randn(2, WIDTH)}
    tensors[f"{module}.lora_B.weight"] = torch.randn(32, 2)
    save_file(tensors, tmp_path / "style.safetensors")
    copied = Path(shutil.copytree(out, tmp_path / "out"))
    arguments = [*command_words(inputs, copied, subnets=[inputs / "pruned.json"]), "--force"]
    lora = f"{tmp_path / 'style.safetensors'}:0.5"
    assert run_command(dipgo.evaluate.__main__.main, [*arguments, "--no-time", "--lora", lora]) == 0
    found = json.loads((copied / "report.json").read_text())
    assert found["model"] == f"{report['model']}, style.safetensors at 0.5"
    assert found["model_sha256"] != report["model_sha256"]
    kept = {path.name for path in (out / "cache").iterdir()}
    added = {path.suffix for path in (copied / "cache").iterdir() if path.name not in kept}
    assert ".npz" in added
    pictures = [_by_name(one)["pruned"]["metrics"]["ssim"]["mean"] for one in (found, report)]
    assert pictures[0] != pictures[1]


def test_nothing_but_results_is_left(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {"cache", "plot.png", "report.json"}
    assert {path.suffix for path in (out / "cache").iterdir()} == {".npz", ".json"}
    with Image.open(out / "plot.png") as plot:
        assert min(plot.size) > 500


@pytest.fixture
def copied(inputs: Path, out: Path, tmp_path: Path) -> Path:
    """A copy of what the run has written, to go on with."""
    return Path(shutil.copytree(out, tmp_path / "out"))


def test_a_second_run_draws_only_what_is_new(
    inputs: Path, copied: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = _results(copied)
    subnets = [inputs / f"{name}.json" for name in ("pruned", "fewer")]
    arguments = [*command_words(inputs, copied, subnets=subnets), "--no-time", "--force"]
    assert run_command(dipgo.evaluate.__main__.main, arguments) == 0
    printed = capsys.readouterr()
    drawn = [line for line in printed.err.splitlines() if line.startswith(("export", "draw"))]
    assert drawn == [f"export fewer, batch {BATCH}", f"draw {PAIRS} pictures: fewer"]
    assert "speedup" not in printed.out
    assert before.items() < _results(copied).items()
    again = _by_name(json.loads((copied / "report.json").read_text()))
    assert again["pruned"]["metrics"]["ssim"] == _by_name(report)["pruned"]["metrics"]["ssim"]
    assert again["fewer"]["steps"] == 2
    assert again["fewer"]["cost"]["macs_kept"] == 1
    assert again["fewer"]["cost"]["macs_of_dense"] == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.filterwarnings("ignore:.*removed a temporary file or folder:dipgo.DipgoWarning")
def test_halves_of_exports_go_too(inputs: Path, copied: Path) -> None:
    (copied / "cache" / f"{NEW}{'0' * 16}").mkdir()
    options: Any = {"pairs": PAIRS, "batch": BATCH, "seed": SEED, "guidance_scale": GUIDANCE}
    subnets = {"pruned": evaluation_subnet("pruned")}
    evaluate(
        inputs / "model",
        subnets,
        (3, "DDIMScheduler"),
        PROMPTS,
        cache=copied / "cache",
        time_repeats=0,
        **options,
    )
    assert not list((copied / "cache").glob(".*"))


def test_a_run_that_is_stopped_keeps_what_is_finished(out: Path, stopped: dict[str, int]) -> None:
    assert sorted(Path(name).suffix for name in stopped) == [".json", ".npz", ".npz"]
    assert stopped.items() < _results(out).items()


@pytest.mark.slow
def test_a_damaged_result_is_made_again(
    inputs: Path, copied: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed at 3bfeb0e: the evaluation was refused until somebody removed the file."""
    path = _result_paths(copied)["pruned"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert (
        run_command(dipgo.evaluate.__main__.main, [*command_words(inputs, copied), "--force"]) == 0
    )
    lines = capsys.readouterr().err.splitlines()
    (warning,) = (line for line in lines if line.startswith("warning: "))
    assert warning.startswith(f"warning: {path}: a damaged file (")
    assert warning.endswith("); it is made again")
    assert [line for line in lines if line.startswith("draw")] == [f"draw {PAIRS} pictures: pruned"]
    assert path.read_bytes() == whole
    again = _by_name(json.loads((copied / "report.json").read_text()))["pruned"]["metrics"]
    assert again.items() <= _by_name(report)["pruned"]["metrics"].items()
