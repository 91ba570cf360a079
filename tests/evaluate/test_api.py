"""`evaluate`: what it measures, against computations of their own, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from scipy import linalg, ndimage, stats
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

import dipgo.evaluate.__main__
from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.evaluate.api import evaluate
from dipgo.evaluate.cache import Drawn, read_drawn
from dipgo.evaluate.draw import Progress
from dipgo.evaluate.judges.classifier import (
    Classifier,
    load_classifier,
    read_labels,
    save_classifier,
)
from dipgo.evaluate.judges.frechet import ClassifierFeatures, classifier_distance
from dipgo.evaluate.metrics import interval, latent_error, psnr, ssim, to_tensor
from dipgo.evaluate.pairs import make_pairs
from dipgo.evaluate.variants import Variant
from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from tests.support.tiny_pipeline import TOKENS, WIDTH, tiny_text_encoder, tiny_tokenizer
from tests.support.zoo import ZOO

BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
GATES = {
    "pruned": ("11111", "00001", "11111"),
    "every": ("11111", "11111", "11111"),
    "fewer": ("11111", "11111"),
}
TIMESTEPS = {3: (667.0, 334.0, 1.0), 2: (501.0, 1.0)}
PROMPTS = ("a red circle", "a blue circle", "a red square")
HEADS = {"colour": ("red", "blue"), "shape": ("circle", "square")}
SIZE = 32
PAIRS, BATCH, SEED, GUIDANCE = 4, 3, 7, 5.0
"""The fourth pair is the first prompt again, and fills a batch with nothing."""

PICTURE_TOLERANCE = 1e-4  # of SSIM, and relative of dB, in float32
SAME_LATENTS = 1e-5  # relative; ONNX Runtime against PyTorch over three steps


def _subnet(name: str, **changes: Any) -> SubNet:
    gates = np.array([[gate == "1" for gate in row] for row in GATES[name]])
    steps = len(gates)
    subnet = SubNet(
        steps,
        TIMESTEPS[steps],
        BLOCKS,
        gates,
        ("output",) * len(BLOCKS),
        ModelRef("UNet2DConditionModel"),
        SchedulerRef("DDIMScheduler"),
    )
    return replace(subnet, **changes)


@pytest.fixture(scope="module")
def inputs(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the command reads."""
    folder = tmp_path_factory.mktemp("evaluation")
    for name in GATES:
        _subnet(name).save(folder / f"{name}.json")
    (folder / "prompts.txt").write_text("\n\n".join(PROMPTS) + "\n")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        save_classifier(Classifier(HEADS, (8, 8, 16), SIZE), folder / "classifier")
        _save_clip(folder / "clip")
    (folder / "reference").mkdir()
    for index, picture in enumerate(_random_pictures(5, seed=1)):
        Image.fromarray(picture).save(folder / "reference" / f"{index}.png")
    _save_model(tiny_pipeline, folder / "model")
    return folder


def _save_model(tiny_pipeline: Path, folder: Path) -> None:
    """The tiny pipeline with a smaller U-Net and VAE: pictures of 32 x 32, quicker exports."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 32),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            norm_num_groups=8,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            sample_size=SIZE,
        )
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_pipeline, unet=unet, vae=vae, safety_checker=None
    )
    pipeline.save_pretrained(folder)


def _save_clip(folder: Path) -> None:
    text = tiny_text_encoder().config.to_dict()
    vision = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    tokenizer = tiny_tokenizer(folder.with_name("clip-vocabulary"))
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)


def _random_pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise u8[count, 32, 32, 3]."""
    noise = np.random.default_rng(seed).normal(size=(count, SIZE, SIZE, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    return ((smooth / np.abs(smooth).max() / 2 + 0.5) * 255).round().astype(np.uint8)


def _arguments(inputs: Path, out: Path, **changes: Any) -> list[str]:
    """The command's arguments; None for an option that is left out."""
    options: dict[str, Any] = {
        "model": inputs / "model",
        "subnets": [inputs / "pruned.json", inputs / "every.json"],
        "prompts": inputs / "prompts.txt",
        "pairs": PAIRS,
        "batch": BATCH,
        "seed": SEED,
        "guidance": GUIDANCE,
        "classifier": inputs / "classifier",
        "reference": inputs / "reference",
        "threads": 1,
        "out": out,
    }
    words: list[str] = []
    for name, value in (options | changes).items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


class StoppedError(Exception):
    """Stands for a signal."""


@pytest.fixture(scope="module")
def stopped(inputs: Path) -> dict[str, int]:
    """The results, with their times, of a run that is stopped before its last export."""

    def stage(description: str) -> AbstractContextManager[object]:
        if description == f"export every, batch {BATCH}":
            raise StoppedError
        return nullcontext()

    subnets = {name: _subnet(name) for name in ("pruned", "every")}
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
            guidance=GUIDANCE,
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
    arguments = _arguments(inputs, out, time_repeats=2, clip_model=inputs / "clip")
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
        "ssim": [_ssim(*both) for both in zip(pruned.pictures, dense.pictures, strict=True)],
        "psnr_db": [_psnr(*both) for both in zip(pruned.pictures, dense.pictures, strict=True)],
        "latent_error": [
            np.sqrt(((z - d) ** 2).sum() / (d**2).sum())
            for z, d in zip(pruned.latents, dense.latents, strict=True)
        ],
    }
    for name, values in expected.items():
        assert metrics[name]["values"] == pytest.approx(values, rel=PICTURE_TOLERANCE)
        assert metrics[name]["mean"] == pytest.approx(np.mean(values), rel=PICTURE_TOLERANCE)


def test_metrics_of_random_pictures() -> None:
    found, expected = _random_pictures(20), _random_pictures(20, seed=1)
    both = list(zip(found, expected, strict=True))
    assert ssim(found, expected) == pytest.approx([_ssim(*one) for one in both], abs=1e-4)
    assert psnr(found, expected) == pytest.approx([_psnr(*one) for one in both], rel=1e-5)
    assert np.isinf(psnr(found, found)).all()


def _ssim(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Wang et al. 2004, equation 13, of pictures in [0, 1], mirrored at their edges."""

    def blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, (1.5, 1.5, 0), mode="mirror", radius=5))

    x, y = found / 255, expected / 255
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    return float(-10 * np.log10(((found / 255 - expected / 255) ** 2).mean()))


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.1, 64)
    found = interval(values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)
    error = stats.sem(values)
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, len(values) - 1, values.mean(), error), abs=error / 5
    )
    assert found.mean == pytest.approx(values.mean())


def test_intervals_without_a_spread_or_with_infinity() -> None:
    same = interval([0.5] * 8)
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    assert interval([30.0, np.inf]).low == np.inf


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


def test_labels_are_whole_words() -> None:
    heads = {"colour": ("red", "dark red"), "place": ("at the top left", "in the center")}
    found = read_labels({"colour": ("red", "blue")} | {"place": heads["place"]}, _PLACED)
    assert found == {"colour": "red", "place": "at the top left"}
    with pytest.raises(DipgoError, match="head colour: found red and dark red"):
        read_labels(heads, "A dark red ring at the top left")


_PLACED = "A hundred Red rings, at the top left"


def test_classifier_of_any_size(tmp_path: Path) -> None:
    model = Classifier(HEADS, (8, 16), 37)
    save_classifier(model, tmp_path)
    loaded = load_classifier(tmp_path)
    pictures = torch.randn(2, 3, 37, 37)
    assert loaded.features(pictures).shape == (2, loaded.num_features)
    assert {name: one.shape for name, one in loaded(pictures).items()} == dict.fromkeys(
        HEADS, (2, 2)
    )


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
        assert time["speedup"] == pytest.approx(time["dense_seconds"] / time["seconds"])
    assert len(report["dense"]["time"]["runs"]) == 4


def test_times_of_another_batch(inputs: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def stage(description: str) -> AbstractContextManager[object]:
        stages.append(description)
        return nullcontext()

    report = evaluate(
        inputs / "model",
        {"fewer": _subnet("fewer")},
        (3, "DDIMScheduler"),
        PROMPTS,
        cache=tmp_path,
        pairs=2,
        batch=2,
        time_batch=1,
        time_repeats=1,
        threads=1,
        progress=Progress(stage),
    )
    assert (report.batch, report.time_batch) == (2, 1)
    exports = [one for one in stages if one.startswith("export")]
    assert sorted(exports) == [
        f"export {name}, batch {n}" for name in ("dense", "fewer") for n in (1, 2)
    ]
    assert not list(tmp_path.glob("export-*"))


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
    arguments = _arguments(inputs, copied, subnets=[inputs / "pruned.json"])
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
    arguments = [*_arguments(inputs, copied, subnets=subnets), "--no-time"]
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


def test_halves_of_exports_go_too(inputs: Path, copied: Path) -> None:
    key = _result_paths(copied)["dense"].stem
    (copied / "cache" / f".export-{key}.half").mkdir()
    options: Any = {"pairs": PAIRS, "batch": BATCH, "seed": SEED, "guidance": GUIDANCE}
    subnets = {"pruned": _subnet("pruned")}
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


def test_a_damaged_result(inputs: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (copied / "cache").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    fragments = (".npz", "a damaged file", "an earlier run", "remove the file")
    _check_refused(_arguments(inputs, copied), fragments, copied, capsys)


def test_a_subnet_without_a_scheduler_has_that_of_dense() -> None:
    own, none = (_subnet("pruned", scheduler=one) for one in (SchedulerRef("DDIMScheduler"), None))
    assert Variant.of_subnet("own", own, "euler").scheduler is None  # the SubNet's
    assert Variant.of_subnet("none", none, "euler").scheduler == "euler"


def test_pairs() -> None:
    pairs = make_pairs(["a", "b"], 3, 10)
    assert [(pair.prompt, pair.seed) for pair in pairs] == [("a", 10), ("b", 11), ("a", 12)]


# What is refused: the change of arguments, and the fragments of where, found and expected.

Change = Callable[[Path, Path], dict[str, Any]]
REFUSED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no prompts": (
        lambda inputs, tmp: {"prompts": _text(tmp / "no.txt", "\n \n")},
        ("no.txt", "no prompts", "one prompt a line"),
    ),
    "prompts that are not there": (
        lambda inputs, tmp: {"prompts": tmp / "no.txt"},
        ("no.txt", "nothing that can be read", "one prompt a line"),
    ),
    "prompts that are not text": (
        lambda inputs, tmp: {"prompts": inputs / "reference" / "0.png"},
        ("0.png", "not UTF-8", "one prompt a line"),
    ),
    "one pair": (lambda inputs, tmp: {"pairs": 1}, ("--pairs", "1", "at least 2")),
    "a negative seed": (lambda inputs, tmp: {"seed": -1}, ("--seed", "-1", "from 0")),
    "no classifier": (
        lambda inputs, tmp: {"classifier": tmp / "no"},
        ("config.json", "nothing that can be read", "a classifier's folder"),
    ),
    "a classifier of other weights": (
        lambda inputs, tmp: {"classifier": _other_weights(tmp / "classifier")},
        ("classifier", "weights that do not fit", "a classifier's folder"),
    ),
    "a classifier of another size": (
        lambda inputs, tmp: {"classifier": _classifier(tmp / "classifier", (8,), 64)},
        ("--classifier", "64 x 64", "32 x 32, as the model draws"),
    ),
    "a value that no head knows": (
        lambda inputs, tmp: {"prompts": _text(tmp / "p.txt", "a red circle\na green circle")},
        ("prompt 'a green circle', head colour", "none of its values", "one of red, blue"),
    ),
    "two values": (
        lambda inputs, tmp: {"prompts": _text(tmp / "p.txt", "a red or blue circle")},
        ("'a red or blue circle', head colour", "red and blue", "exactly one"),
    ),
    "no reference": (
        lambda inputs, tmp: {"reference": tmp / "no"},
        ("--reference", "no such folder", "at least 2 PNG files"),
    ),
    "a reference without pictures": (
        lambda inputs, tmp: {"reference": inputs / "clip"},
        ("--reference", "0 PNG files", "at least 2 PNG files"),
    ),
    "a reference of another size": (
        lambda inputs, tmp: {"reference": _pngs(tmp / "reference", 64)},
        ("0.png", "64 x 64", "32 x 32, as the model draws"),
    ),
    "a reference that nothing reads": (
        lambda inputs, tmp: {"classifier": None},
        ("--reference", "nothing that compares", "--classifier DIR or --fid"),
    ),
    "no CLIP model": (
        lambda inputs, tmp: {"clip_model": inputs / "classifier"},
        ("--clip-model", "no CLIP model", "CLIPProcessor"),
    ),
    "a SubNet of another model": (
        lambda inputs, tmp: {"subnets": _saved(tmp, model=ModelRef("DiTTransformer2DModel"))},
        ("other: SubNet, model.class", "DiTTransformer2DModel", "UNet2DConditionModel"),
    ),
    "a SubNet of another scheduler": (
        lambda inputs, tmp: {"subnets": _saved(tmp, timesteps=(700.0, 300.0, 0.0))},
        ("other: SubNet, timesteps", "from 700 to 0", "from 667 to 1"),
    ),
    "a SubNet of other blocks": (
        lambda inputs, tmp: {"subnets": _saved(tmp, blocks=(*BLOCKS[:4], "up_blocks.9"))},
        ("other: SubNet, block up_blocks.9", "no module", "the path of a module"),
    ),
    "no SubNet": (
        lambda inputs, tmp: {"subnets": [tmp / "no.json"]},
        ("no.json", "nothing that can be read", "a SubNet file"),
    ),
    "a SubNet twice": (
        lambda inputs, tmp: {"subnets": [inputs / "pruned.json"] * 2},
        ("--subnets", "one file named twice", "once"),
    ),
    "a scheduler that there is not": (
        lambda inputs, tmp: {"scheduler": "fast"},
        ("dense: scheduler fast", "a name", "one of ddim"),
    ),
    "too many steps": (
        lambda inputs, tmp: {"steps": 2000},
        ("dense: --steps", "2000", "at most 1000"),
    ),
    "a model that draws no pictures of prompts": (
        lambda inputs, tmp: {"model": _dit(tmp / "dit")},
        ("model dit", "no text_encoder", "a text-to-image pipeline"),
    ),
    "a file in the place of DIR": (
        lambda inputs, tmp: {"out": _text(tmp / "file", "")},
        ("file", "not a folder", "a folder"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(
    name: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, fragments = REFUSED[name]
    changes = change(inputs, tmp_path)
    arguments = _arguments(inputs, **({"out": tmp_path / "out"} | changes))
    _check_refused(arguments, fragments, tmp_path, capsys)


def test_fid_needs_a_reference(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*_arguments(inputs, tmp_path / "out", reference=None), "--fid"]
    fragments = ("--fid", "no reference pictures", "--reference DIR")
    _check_refused(arguments, fragments, tmp_path, capsys)


@pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is there"
)
def test_fid_without_its_package(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*_arguments(inputs, tmp_path / "out"), "--fid"]
    fragments = ("--fid", "no package torch-fidelity", "the Inception network", "pip install")
    _check_refused(arguments, fragments, tmp_path, capsys)


def _check_refused(
    arguments: list[str],
    fragments: tuple[str, ...],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, one line with the fragments in order, and nothing written."""
    capsys.readouterr()
    before = sorted(folder.rglob("*"))
    assert run_command(dipgo.evaluate.__main__.main, arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    *_, message = printed.err.splitlines()
    assert message.startswith("error: ")
    rest = message
    for fragment in fragments:
        assert fragment in rest, f"{fragment!r} is not in its place in {message!r}"
        rest = rest[rest.index(fragment) + len(fragment) :]
    assert sorted(folder.rglob("*")) == before


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _saved(folder: Path, **changes: Any) -> list[Path]:
    _subnet("pruned", **changes).save(folder / "other.json")
    return [folder / "other.json"]


def _classifier(folder: Path, channels: tuple[int, ...], size: int) -> Path:
    save_classifier(Classifier(HEADS, channels, size), folder)
    return folder


def _other_weights(folder: Path) -> Path:
    _classifier(folder, (8,), SIZE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"channels": [16]}))
    return folder


def _pngs(folder: Path, size: int) -> Path:
    folder.mkdir()
    for index in range(2):
        Image.new("RGB", (size, size)).save(folder / f"{index}.png")
    return folder


def _dit(folder: Path) -> Path:
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    DiTPipeline(ZOO["dit"].build(), vae, DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder
