"""Threads that share a runner, a pipeline or its parts: every result is that of a run alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dipgo.engines.onnxruntime.backend as onnxruntime_backend
from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.clones import Clones
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import BackendSettings, Part, Runner
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from tests.support.build_once import build_once
from tests.support.sample_exports import NAMES

THREADS, RUNS = 8, 2
"""Threads, and runs of each."""


def _in_threads(work: Callable[[int], Any]) -> list[Any]:
    """Calls `work` with 0, 1, …, from threads that begin at the same moment; results in order."""
    barrier = Barrier(THREADS)

    def begin(thread: int) -> list[Any]:
        barrier.wait()
        return [work(thread * RUNS + run) for run in range(RUNS)]

    with ThreadPoolExecutor(THREADS) as pool:
        return [result for results in pool.map(begin, range(THREADS)) for result in results]


@pytest.fixture(scope="module")
def programs(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with programs for PyTorch."""
    return build_once(
        tmp_path_factory,
        "programs",
        lambda folder: export(tiny_pipeline, "dense", folder, steps=2, target="torch"),
    )


def _check_runs(runner: Runner) -> None:
    inputs = [random_inputs(runner, seed) for seed in range(THREADS * RUNS)]
    expected = [runner.run(arrays)["latents"] for arrays in inputs]
    found = _in_threads(lambda index: runner.run(inputs[index])["latents"])
    assert all(map(np.array_equal, found, expected))
    assert not np.array_equal(expected[0], expected[1])


@pytest.mark.parametrize("clones", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, clones: int, sample_exports: dict[str, Path]) -> None:
    """Failed at 4482adb with one in three results wrong: all threads wrote the same buffers."""
    _check_runs(load(sample_exports[name], threads=1, clones=clones))


@pytest.mark.slow
@pytest.mark.parametrize("clones", [1, 3])
def test_runs_in_pytorch(clones: int, programs: Path) -> None:
    _check_runs(load(programs, target="torch", provider="cpu", clones=clones))


@pytest.mark.parametrize("clones", [1, 3])
def test_pictures_and_parts(clones: int, sample_exports: dict[str, Path]) -> None:
    """Of prompts and seeds of their own, with the text encoder and the VAE between runs."""
    pipeline = Pipeline.from_export(sample_exports["dense"], threads=1, clones=clones)

    def draw(index: int) -> NDArray[np.float32]:
        images = pipeline(f"picture {index}", seed=index, output_type="np").images
        return np.asarray(images)

    expected = [draw(index) for index in range(THREADS * RUNS)]
    assert all(map(np.array_equal, _in_threads(draw), expected))


def test_clones_share_sessions(
    sample_exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = onnxruntime_backend.make_session
    monkeypatch.setattr(
        onnxruntime_backend, "make_session", lambda *args: made.append(args) or make(*args)
    )
    pipeline = Pipeline.from_export(sample_exports["dense"], clones=2)
    count = len(made)
    other = pipeline.clone()
    assert count == len(made) > 0
    expected = pipeline("a", seed=0, output_type="np").images
    assert np.array_equal(other("a", seed=0, output_type="np").images, expected)


@pytest.mark.parametrize("clones", [1, 2])
def test_a_run_within_a_run_is_refused(clones: int, sample_exports: dict[str, Path]) -> None:
    runner = load(sample_exports["dense"], clones=clones)
    inputs = random_inputs(runner)
    expected = runner.run(inputs)["latents"]
    with pytest.raises(DipgoError, match="found a run within a run of the same thread"):
        runner.run(inputs, on_step=lambda step: runner.run(inputs))
    assert np.array_equal(runner.run(inputs)["latents"], expected), "it is free again"


def test_a_clone_may_run_within_a_run(sample_exports: dict[str, Path]) -> None:
    runner = load(sample_exports["dense"])
    other, inputs, found = runner.clone(), random_inputs(runner), []
    expected = runner.run(inputs)["latents"]
    result = runner.run(inputs, on_step=lambda step: found.append(other.run(inputs)["latents"]))
    assert all(np.array_equal(latents, expected) for latents in (result["latents"], *found))
    assert found


def test_latents_may_be_decoded_within_a_run(sample_exports: dict[str, Path]) -> None:
    pipeline = Pipeline.from_export(sample_exports["dense"])
    latents = pipeline("a", output_type="latent").images
    expected, found = pipeline.decode(latents), []
    pipeline("a", on_step=lambda step: found.append(pipeline.decode(latents)))
    assert all(np.array_equal(picture, expected) for picture in found)
    with pytest.raises(DipgoError, match="a run within a run"):
        pipeline("a", on_step=lambda step: pipeline("b"))


def test_a_failed_run_frees_its_buffers(sample_exports: dict[str, Path]) -> None:
    runner = load(sample_exports["dense"])
    inputs = random_inputs(runner)

    def fail(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(inputs, on_step=fail)
    runner.run(inputs)


class Busy:
    """An executor that waits to be told to end."""

    def __init__(self) -> None:
        self.begun, self.end = Event(), Event()

    def run(self, inputs: Any, on_step: Any) -> Any:
        self.begun.set()
        assert self.end.wait(10)
        return self, {}


def test_as_many_runs_go_on_as_there_are_clones() -> None:
    made: list[Busy] = []
    clones = Clones(lambda: made.append(Busy()) or made[-1], 2, "test")  # type: ignore[func-returns-value]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(clones.run, {}) for _ in range(3)]
        assert all(executor.begun.wait(10) for executor in made)
        assert not any(run.done() for run in runs)
        for executor in made:
            executor.end.set()
        used = [run.result(10)[0] for run in runs]
    assert set(used) == set(made)


@pytest.mark.parametrize("clones", [0, -1, 1.5, True, "2", None])
def test_a_number_of_clones_that_is_none(clones: Any, sample_exports: dict[str, Path]) -> None:
    with pytest.raises(DipgoError, match=r"^clones: found "):
        load(sample_exports["pruned"], clones=clones)


def test_a_forked_process_is_refused(sample_exports: dict[str, Path]) -> None:
    """There a run would wait for threads that have not come along."""
    runner = load(sample_exports["dense"])
    inputs, part = random_inputs(runner), Part(runner, "vae_decoder")
    for call in (lambda: runner.run(inputs), lambda: part({})):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                call()
            except DipgoError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read, "rb") as said:
            assert b"a process that was forked after the export was loaded" in said.read()


def test_sessions_that_capture_launches_have_no_clones(
    sample_exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captured launch belongs to one set of buffers; there is no GPU to run it on."""
    monkeypatch.setattr(onnxruntime_backend, "check_provider", lambda provider: None)
    monkeypatch.setattr(onnxruntime_backend, "make_session", lambda *args: None)
    monkeypatch.setattr(onnxruntime_backend, "Executor", lambda *args: args)
    settings = BackendSettings("onnxruntime", "cuda-graph")
    exported = ExportDirectory.open(sample_exports["dense"])
    backend = onnxruntime_backend.OnnxRuntimeBackend(exported, settings)
    backend.plan()
    backend.part("vae_decoder")
    with pytest.raises(DipgoError, match=r"^provider cuda-graph: found a clone"):
        backend.plan()
