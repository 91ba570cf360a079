"""`close()` and `with`: engines are freed, and what is closed is refused in one line.

Failed at 3bfeb0e: there was neither.
"""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.clones import Clones
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from tests.support.build_once import build_once

CLOSED = "found a runner that is closed; expected one that is open; load the export again"


@pytest.fixture(scope="module")
def exported(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_once(
        tmp_path_factory, "to_close", lambda out: export(tiny_pipeline, "dense", out, steps=1)
    )


def test_a_runner(exported: Path) -> None:
    with load(exported, threads=1) as runner:
        inputs, backend = random_inputs(runner), weakref.ref(runner.backend)
        runner.run(inputs)
    gc.collect()
    assert backend() is None, "the engines are freed"
    runner.close()
    for use in (lambda: runner.run(inputs), runner.clone, lambda: runner.backend):
        with pytest.raises(DipgoError, match=CLOSED):
            use()
    assert "closed" in repr(runner)
    assert runner.inputs


def test_a_pipeline_with_its_parts(exported: Path) -> None:
    with Pipeline.from_export(exported, threads=1) as pipeline:
        latents = pipeline("a", seed=0, output_type="latent").images
        backend = weakref.ref(pipeline.runner.backend)
    gc.collect()
    assert backend() is None
    pipeline.close()
    for use in (lambda: pipeline("a"), lambda: pipeline.decode(latents), pipeline.clone):
        with pytest.raises(DipgoError, match=CLOSED):
            use()


def test_clones_stay_open(exported: Path) -> None:
    first = Pipeline.from_export(exported, threads=1)
    second = first.clone()
    expected = second("a", seed=0, output_type="np").images
    first.close()
    assert np.array_equal(second("a", seed=0, output_type="np").images, expected)


def test_an_error_within_with_closes_too(exported: Path) -> None:
    with pytest.raises(KeyError), load(exported, threads=1) as runner:
        raise KeyError
    with pytest.raises(DipgoError, match=CLOSED):
        runner.clone()


def test_within_a_run(exported: Path) -> None:
    runner = load(exported, threads=1)
    inputs = random_inputs(runner)
    with pytest.raises(DipgoError, match=r"found close\(\) within a run"):
        runner.run(inputs, on_step=lambda step: runner.close())
    runner.run(inputs)


class Busy:
    """An executor that waits to be told to end."""

    def __init__(self) -> None:
        self.begun, self.end = Event(), Event()

    def run(self, inputs: Any, on_step: Any) -> Any:
        self.begun.set()
        assert self.end.wait(10)
        return self, {}


def test_a_run_that_goes_on_ends_first_and_waiting_ones_are_refused() -> None:
    executor = Busy()
    clones = Clones(lambda: executor, 1, "test")
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(clones.run, {})
        assert executor.begun.wait(10)
        waiting, closing = pool.submit(clones.run, {}), pool.submit(clones.close)
        with pytest.raises(DipgoError, match=CLOSED):
            waiting.result(10)
        assert not closing.done()
        executor.end.set()
        assert running.result(10)[0] is executor
        closing.result(10)
    with pytest.raises(DipgoError, match=CLOSED):
        clones.run({})
