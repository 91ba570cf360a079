"""What is drawn: SubNets under a scheduler, prompts with seeds, and batches that are timed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline

from dipgo.evaluate.api import evaluate
from dipgo.evaluate.draw import Progress
from dipgo.evaluate.pairs import make_pairs
from dipgo.evaluate.variants import Variant, model_fingerprint
from dipgo.ir.subnet.subnet import SchedulerRef
from dipgo.models.source import load_source
from tests.support.tiny_evaluation import (
    PROMPTS,
    evaluation_subnet,
)
from tests.support.tiny_pipeline import save_tiny_pipeline


@pytest.mark.slow
def test_times_of_another_batch(inputs: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def stage(description: str) -> AbstractContextManager[object]:
        stages.append(description)
        return nullcontext()

    report = evaluate(
        inputs / "model",
        {"fewer": evaluation_subnet("fewer")},
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


def test_a_subnet_without_a_scheduler_has_that_of_dense() -> None:
    own, none = (
        evaluation_subnet("pruned", scheduler=one) for one in (SchedulerRef("DDIMScheduler"), None)
    )
    assert Variant.of_subnet("own", own, "euler").scheduler is None  # the SubNet's
    assert Variant.of_subnet("none", none, "euler").scheduler == "euler"


def test_pairs() -> None:
    pairs = make_pairs(["a", "b"], 3, 10)
    assert [(pair.prompt, pair.seed) for pair in pairs] == [("a", 10), ("b", 11), ("a", 12)]


SWITCHES: dict[str, Callable[[Any], Any]] = {
    "FreeU": lambda pipeline: pipeline.enable_freeu(0.9, 0.2, 1.5, 1.6),
    "other FreeU": lambda pipeline: pipeline.enable_freeu(0.9, 0.3, 1.5, 1.6),
    "fused": lambda pipeline: pipeline.fuse_qkv_projections(),
    "hook": lambda pipeline: pipeline.unet.register_forward_hook(lambda *call: None),
    "hook of the decoder": lambda pipeline: pipeline.vae.register_forward_hook(lambda *call: None),
}


def test_pictures_of_a_changed_model_are_not_those_of_another(tmp_path: Path) -> None:
    """Failed at 21ce821 for 5 of 5: results of the plain model were used again."""
    path = save_tiny_pipeline(tmp_path / "pipeline")
    seen = set()
    for change in (lambda pipeline: None, *SWITCHES.values()):
        pipeline = DiffusionPipeline.from_pretrained(path)
        change(pipeline)
        seen.add(model_fingerprint(load_source(pipeline)))
    assert len(seen) == 1 + len(SWITCHES)
    shutil.copytree(path, tmp_path / "moved")
    moved = [model_fingerprint(load_source(folder)) for folder in (path, tmp_path / "moved")]
    assert moved[0] == moved[1]
    assert moved[0] in seen
