"""Whole searches of toy size: the share kept, what is deployed, stopping and going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.export import export
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.__main__ import main
from dipgo.search.api import search
from dipgo.search.cost.budget import TOLERANCE
from dipgo.search.guards import memory_errors
from dipgo.search.log import Progress
from dipgo.search.losses import DISTANCES
from dipgo.search.refine.initial_gates import regular_rows
from dipgo.search.settings import SearchSettings, published
from tests.support.rare import rare_unless
from tests.support.tiny_search import (
    PROMPTS,
    SMALL,
    STEPS,
    run_hard,
    small,
    tiny_examples,
    tiny_net,
    tiny_problem,
    tiny_request,
)

# Two of six rows keep 0.334 of the cost: where whole rows are chosen, that is asked for.
SEARCHES: dict[str, tuple[SearchSettings, float]] = {
    "rows alone": (small(iterations=0, exchanges=0), 0.66),
    "gates by gradient": (small(exchanges=0, reuse_terms=0), 0.6),
    "all stages": (SMALL, 0.6),
    "filters": (small(iterations=0, reuse_filter=3), 0.6),
    "published": (replace(published(), iterations=2, pool=2, warm_up=1, held_out=0), 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", rare_unless(lambda name: name in ("all stages", "filters", "published"), SEARCHES)
)
def test_what_is_searched_is_what_is_deployed(
    name: str, tiny_pipeline: Path, tmp_path: Path
) -> None:
    """Within the share, and on ONNX Runtime what the SuperNet came to."""
    chosen, ratio = SEARCHES[name]
    found = search(tiny_pipeline, tiny_request(ratio), PROMPTS, chosen)
    found.save(tmp_path / "subnet.json")
    assert SubNet.load(tmp_path / "subnet.json") == found
    problem = tiny_problem(tiny_pipeline)
    if found.reuse_filters:
        problem = problem.with_filters(chosen.reuse_terms, True, chosen.reuse_filter)
    kept = problem.cost.kept(found.gates)
    assert kept <= 1 - ratio + 1e-9
    assert found.provenance["kept"] == pytest.approx(kept, abs=1e-6)
    if not chosen.exchanges:  # which may leave some of it unused
        assert kept > 1 - ratio - TOLERANCE
    filtered = bool(chosen.reuse_terms and chosen.reuse_filter)
    assert (bool(found.reuse_filters), bool(found.reuse)) == (
        filtered,
        bool(chosen.reuse_terms) and not filtered,
    )
    assert found.uses_halves == bool(chosen.reuse_terms)
    net = tiny_net(problem, halves=found.uses_halves)
    inputs = tiny_examples(problem, net)[0].inputs
    expected = run_hard(net, found, inputs)
    _check_deployed(tiny_pipeline, tmp_path / "subnet.json", inputs, expected)


def _check_deployed(
    pipeline: Path, subnet: Path, inputs: dict[str, Tensor], expected: Tensor
) -> None:
    out = export(pipeline, subnet, subnet.with_name("out"), scheduler="ddim")
    given = {net_name: one.numpy() for net_name, one in inputs.items()}
    latents = load(out).run(given)["latents"]
    assert np.abs(latents - expected.numpy()).max() < 1e-3 * float(expected.abs().max())


def test_the_default_starts_from_as_many_rows_as_fit(tiny_pipeline: Path) -> None:
    chosen = small(iterations=0, exchanges=0, reuse_terms=0)
    found = search(tiny_pipeline, tiny_request(0.45), PROMPTS, chosen)
    cost = tiny_problem(tiny_pipeline).cost
    starts = list(regular_rows(cost, 0.55))
    assert starts[0].all(axis=1).sum() == 3
    assert (starts[0].any(axis=1) & ~starts[0].all(axis=1)).any()  # what is left of the share
    # Which of them wins depends on the weights.
    assert any(np.array_equal(found.gates, start) for start in starts)
    assert 0.55 - TOLERANCE <= cost.kept(found.gates) <= 0.55
    assert (found.reuse, found.reuse_filters) == (None, None)


# Stopped, and gone on with.

CUTS = {"gates": 2, "gates done": 3, "exchange": 6, "reuse": 11}
"""Of 3 iterations on the gates, 6 exchanges and 4 iterations on the weights."""


class _StoppedError(Exception):
    """In place of a power cut."""


def _stop_after(count: int) -> Callable[[Progress], None]:
    seen: list[Progress] = []

    def tell(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == count:
            raise _StoppedError

    return tell


@pytest.fixture(scope="module")
def uninterrupted(tiny_pipeline: Path) -> SubNet:
    """`SMALL` at one go, without checkpoints."""
    return search(tiny_pipeline, tiny_request(), PROMPTS, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_a_search_that_was_stopped_goes_on(
    cut: str, tiny_pipeline: Path, uninterrupted: SubNet, tmp_path: Path
) -> None:
    def go(stop: Callable[[Progress], None]) -> SubNet:
        return search(
            tiny_pipeline,
            tiny_request(),
            PROMPTS,
            SMALL,
            checkpoint=tmp_path / "state",
            on_progress=stop,
        )

    with pytest.raises(_StoppedError):
        go(_stop_after(CUTS[cut]))
    go(lambda progress: None).save(tmp_path / "again.json")
    uninterrupted.save(tmp_path / "one_go.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "one_go.json").read_bytes()


Options = list[str]
MANY = {"iterations": 4, "exchanges": 30, "reuse-iterations": 12}
KILLED = {"gates": 2, "exchange": 5, "reuse": 3}
"""After how many lines of the log for that stage."""


@pytest.fixture
def options(tiny_pipeline: Path, tmp_path: Path) -> Options:
    """Of a command that searches."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    given = {"model": tiny_pipeline, "prompts": prompts, "out": tmp_path / "subnet.json"}
    numbers = {"steps": STEPS, "ratio": 0.6, "batch": 1, "pool": 2, "exchange-examples": 1}
    every = {**given, **numbers, "scheduler": "ddim", "reuse-filter": 0, "held-out": 0, **MANY}
    return [text for key, value in every.items() for text in (f"--{key}", str(value))]


def _lines(stage: str, log: Path) -> int:
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(line.startswith(stage) for line in lines)


def _kill_in(stage: str, options: Options, log: Path) -> None:
    """Runs the command until its log tells enough of a stage, and kills it.

    With as many threads as here: sums in another order are other bits.
    """
    command = [sys.executable, "-m", "dipgo.search", *options]
    with subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and _lines(stage, log) < KILLED[stage]:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("filter_size", rare_unless(lambda size: size > 0, [0, 3]))
def test_a_search_that_was_killed_goes_on(
    filter_size: int, options: Options, tmp_path: Path
) -> None:
    """In any stage; the file is the same, byte for byte. Filters are not trained."""
    out, log = tmp_path / "subnet.json", tmp_path / "log.csv"
    options = [*options, "--reuse-filter", str(filter_size)]
    options += ["--reuse-iterations", "0"] if filter_size else []
    stages = [stage for stage in KILLED if stage != "reuse" or not filter_size]
    assert run_command(main, options) == 0
    expected = out.read_bytes()
    out.unlink()
    resumable = [*options, "--checkpoint", str(tmp_path / "state"), "--log", str(log)]
    for stage in stages:
        _kill_in(stage, resumable, log)
        assert not out.exists()
        assert log.read_text().splitlines()[-1].startswith(stage)
    assert run_command(main, resumable) == 0
    assert out.read_bytes() == expected
    assert log.read_text().count("stage,done") == 1


# Numbers that are none, and memory that does not suffice.


def _poison_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """From then on every distance is NaN."""
    real, calls = DISTANCES["log-l2"], []

    def distance(pruned: Tensor, dense: Tensor) -> Tensor:
        calls.append(len(calls))
        value = real(pruned, dense)
        return value * float("nan") if len(calls) > count else value

    monkeypatch.setitem(DISTANCES, "log-l2", distance)


def test_a_loss_that_is_nan_leaves_the_checkpoint_before_it(
    tiny_pipeline: Path,
    uninterrupted: SubNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def go() -> SubNet:
        return search(tiny_pipeline, tiny_request(), PROMPTS, SMALL, checkpoint=tmp_path / "state")

    with monkeypatch.context() as patch:
        _poison_after(patch, 2)
        message = "^search, iteration 2: found NaN or infinity in the loss; expected finite"
        with pytest.raises(DipgoError, match=message):
            go()
    with safe_open(tmp_path / "state" / "gates.safetensors", framework="np") as file:
        assert file.metadata()["iteration"] == "2"
    assert go() == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["iterations", "exchanges", "reuse-iterations", "reuse-filter"])
def test_guidance_that_overflows_is_refused_in_every_stage(
    stage: str, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [text for name in MANY if name != stage for text in (f"--{name}", "0")]
    if stage != "exchanges":
        at = options.index("--exchange-examples")
        options = options[:at] + options[at + 2 :]
    if stage == "reuse-filter":
        others += ["--reuse-filter", "3"]
    code = run_command(main, [*options, "--guidance-scale", "3e38", *others])
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert error.startswith("error: search, iteration 0: found NaN or infinity in "), error


@pytest.mark.parametrize("scale", ["inf", "-inf", "nan"])
def test_guidance_without_end_is_refused_at_once(
    scale: str, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command(main, [*options, f"--guidance-scale={scale}"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    expected = f"error: --guidance-scale: found {scale}; expected a finite number; correct it"
    assert error == expected


MEMORY: dict[str, BaseException] = {
    "CUDA out of memory. Tried to allocate 2.00 GiB.": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has"
    ),
    "DefaultCPUAllocator: can't allocate memory: you tried": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    "out of memory": MemoryError(),
}


@pytest.mark.parametrize("found", MEMORY)
@pytest.mark.parametrize(
    ("checkpointing", "remedy"),
    [(True, "lower batch"), (False, "leave checkpointing=False out")],
)
def test_memory_that_does_not_suffice(found: str, checkpointing: bool, remedy: str) -> None:
    with pytest.raises(DipgoError) as caught, memory_errors(checkpointing):
        raise MEMORY[found]
    expected = "memory for one batch over all steps"
    assert str(caught.value) == f"search: found {found}; expected {expected}; {remedy}"


def test_other_errors_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError, match=r"^a mistake$"), memory_errors(True):
        raise RuntimeError("a mistake")


def test_a_search_out_of_memory_takes_one_line(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def distance(pruned: Tensor, dense: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setitem(DISTANCES, "log-l2", distance)
    assert run_command(main, [*options, "--no-checkpointing"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: search: found CUDA out of memory.; expected memory")
    assert error.endswith("leave --no-checkpointing out")
