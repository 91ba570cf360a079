"""The TensorRT executor on stand-ins for NVIDIA's libraries, against ONNX Runtime."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines import Runner, load
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import list_launches
from dipgo.engines.tensorrt.alignment import align
from dipgo.engines.tensorrt.cuda import Driver
from dipgo.ir.types import numpy_dtype
from dipgo.run.pipeline import Pipeline
from tests.support.nvidia_stand_in import tensorrt
from tests.support.nvidia_stand_in.install import TARGET, install, write_engines
from tests.support.nvidia_stand_in.machine import Machine
from tests.support.sample_exports import NAMES

TOLERANCE = 1e-6
"""The stand-in computes with ONNX Runtime too, so that nothing but the plumbing can differ."""


@pytest.fixture(scope="module")
def exports(
    sample_exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Copies of the sample exports, with engines."""
    folder = tmp_path_factory.mktemp("with_engines")
    copies = {name: Path(shutil.copytree(sample_exports[name], folder / name)) for name in NAMES}
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        for path in copies.values():
            write_engines(path)
    return copies


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A process with the stand-ins, which must be left as it was found."""
    found = install(monkeypatch)
    yield found
    gc.collect()
    assert found.used == 0
    assert not found.objects
    assert len(found.streams) == 1


def _inputs(runner: Runner, seed: int = 0, guidance: float = 5.0) -> dict[str, NDArray[Any]]:
    random, made = np.random.default_rng(seed), {}
    for name, kind in runner.inputs.items():
        dtype = numpy_dtype(kind.dtype)
        drawn = random.integers(0, 7, kind.shape) if kind.dtype[0] == "i" else None
        made[name] = np.asarray(random.normal(size=kind.shape) if drawn is None else drawn, dtype)
    if "guidance_scale" in made:
        made["guidance_scale"] = np.asarray(guidance, made["guidance_scale"].dtype)
    return made


def _difference(path: Path, runner: Runner, inputs: dict[str, NDArray[Any]]) -> float:
    expected = load(path, threads=1).run(inputs)
    found = runner.run(inputs)
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_onnxruntime(
    name: str, exports: dict[str, Path], machine: Machine
) -> None:
    """Two runs with other inputs, of one capture."""
    runner = load(exports[name], target=TARGET)
    for seed, guidance in ((0, 5.0), (1, 2.5)):
        error = _difference(exports[name], runner, _inputs(runner, seed, guidance))
        print(f"{name}: largest difference {error:.1e}")
        assert error <= TOLERANCE
    assert machine.counts["cuStreamBeginCapture"] == 1
    assert tensorrt.SAID == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_one_graph_launch_and_one_wait(
    name: str, exports: dict[str, Path], machine: Machine
) -> None:
    runner = load(exports[name], target=TARGET)
    inputs, steps = _inputs(runner), list[int]()
    machine.calls.clear()
    runner.run(inputs, on_step=steps.append)
    assert machine.counts["cuGraphLaunch"] == 1
    waits = [call for call in machine.calls if "Synchronize" in call]
    assert waits == ["cuStreamSynchronize"]
    assert machine.calls.index("cuGraphLaunch") < machine.calls.index("cuStreamSynchronize")
    assert not machine.counts["execute_async_v3"] + machine.counts["cuMemAlloc"]
    assert steps == sorted(set(steps))
    assert steps
    assert runner.times is not None
    assert 0 < sum(runner.times.segments.values()) <= runner.times.total


def test_runs_hold_no_more_than_the_first(exports: dict[str, Path], machine: Machine) -> None:
    runner = load(exports["pruned"], target=TARGET)
    runner.run(_inputs(runner))
    held = machine.used, len(machine.objects), len(machine.streams)
    for seed in range(3):
        runner.run(_inputs(runner, seed))
    assert (machine.used, len(machine.objects), len(machine.streams)) == held


def test_contexts_share_one_scratch(exports: dict[str, Path], machine: Machine) -> None:
    """As large as the largest needs; contexts of a batched export have several shapes."""
    runner = load(exports["batched"], target=TARGET)
    (executor,) = runner._clones._free
    contexts = executor._contexts.values()  # type: ignore[attr-defined]
    ((_, size),) = {context.memory for context in contexts}
    needs = [context.update_device_memory_size_for_shapes() for context in contexts]
    assert max(needs) <= size < max(needs) + 256
    assert len({context.engine for context in contexts}) < len(contexts), "one width only"
    assert machine.counts["cuMemAlloc"] == 2


def test_another_thread_may_run_and_drop_it(exports: dict[str, Path], machine: Machine) -> None:
    """The context is of the loading thread alone until others make it theirs."""
    held: list[Any] = [load(exports["pruned"], target=TARGET)]
    inputs, found = _inputs(held[0]), list[float]()

    def work() -> None:
        runner = held.pop()
        found.append(_difference(exports["pruned"], runner, inputs))
        del runner
        gc.collect()

    _in_a_thread(work)
    assert found[0] <= TOLERANCE
    assert machine.used == 0


def test_clones_share_engines(exports: dict[str, Path], machine: Machine) -> None:
    """Each has memory, contexts and a captured graph of its own."""
    runner = load(exports["pruned"], target=TARGET, clones=2)
    loaded = machine.counts["deserialize_cuda_engine"]
    other = runner.clone()
    assert machine.counts["deserialize_cuda_engine"] == loaded == len(runner.export.engine_files)
    assert machine.counts["cuStreamBeginCapture"] == 4
    inputs = _inputs(runner)
    expected = runner.run(inputs)
    found = [clone.run(inputs, lambda step: None)[0] for clone in other._clones._free]
    assert all(np.array_equal(latents, expected["latents"]) for latents in found)
    assert len(found) == 2


def test_another_thread_may_load_parts(exports: dict[str, Path], machine: Machine) -> None:
    runner = load(exports["dense"], target=TARGET)
    found: list[Pipeline] = []
    _in_a_thread(lambda: found.append(Pipeline(runner)))
    assert len(found) == 1


def _in_a_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_pictures_are_those_of_onnxruntime(exports: dict[str, Path], machine: Machine) -> None:
    """Text encoder, plan and VAE decoder."""
    prompts = ["a red circle", "a blue square", "green"]
    pictures = [
        Pipeline.from_export(exports["dense"], target=target)(
            prompts, seed=3, guidance_scale=4.0, output_type="np"
        ).images
        for target in (TARGET, "onnxruntime")
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= TOLERANCE


def test_lanes_that_begin_anywhere_are_copied(exports: dict[str, Path], machine: Machine) -> None:
    """The stand-in refuses what is not at a multiple of 256 bytes, as TensorRT may."""
    copies = {}
    for name, path in exports.items():
        export = ExportDirectory.open(path)
        launches = align(list_launches(export.plan, export.tables))
        copies[name] = sum(len(one.before) + len(one.after) for one in launches)
        for one in launches:
            for binding in (*one.launch.inputs, *one.launch.outputs):
                assert binding.place.offset % 256 == 0
        before = machine.counts["cuMemcpyDtoDAsync"]
        load(path, target=TARGET)
        assert machine.counts["cuMemcpyDtoDAsync"] - before == 2 * copies[name]  # run, captured
    print(copies)
    assert any(copies.values()), "toy models that need no copies would show nothing"


def test_what_allocate_gives_is_zero_before_anything_else_is_written(machine: Machine) -> None:
    """The driver's memset is asynchronous, on a stream that others do not wait for."""
    opened = Driver.open("a test", "none")
    memory, stream = opened.allocate(64), opened.stream()
    written, found = np.full(64, 7, np.uint8), np.empty(64, np.uint8)
    stream.write(memory.address, written)
    stream.synchronize()
    stream.read(found, memory.address)
    stream.synchronize()
    assert (found == written).all()


@pytest.mark.parametrize("broken", [False, True])
def test_a_capture_that_fails_leaves_nothing(broken: bool, machine: Machine) -> None:
    """The first fault is told, and the stream can be used again."""
    stream = Driver.open("a test", "none").stream()

    def work() -> None:
        if broken:
            stream.synchronize()  # what ends the capture
        raise DipgoError("the work", found="a fault", expected="none", remedy="none")

    with pytest.raises(DipgoError, match="CAPTURE_UNSUPPORTED" if broken else "the work: found"):
        stream.capture(work)
    assert not machine.objects
    stream.synchronize()
