"""What is drawn: SubNets under a scheduler, prompts with seeds, and batches that are timed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from dipgo.evaluate.api import evaluate
from dipgo.evaluate.draw import Progress
from dipgo.evaluate.pairs import make_pairs
from dipgo.evaluate.variants import Variant
from dipgo.ir.subnet.subnet import SchedulerRef
from tests.support.tiny_evaluation import (
    PROMPTS,
    evaluation_subnet,
)


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
