"""Times runners interleaved in one process, so that noise affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from dipgo.engines.finite import check_finite
from dipgo.engines.runner import Runner, RunTimes
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every run, and medians over the runs.

    `runs` and `segment_runs` are in the order of the turns, so that what ran in the same turns can
    be compared pair by pair (`paired_ratio`): medians are of different moments.
    """

    total: float
    segments: dict[str, float]
    overhead: float
    """Share of the run outside the segments' engines."""
    runs: tuple[float, ...]
    segment_runs: dict[str, tuple[float, ...]]


def time_runners(
    runners: Mapping[str, Runner],
    *,
    warmup: int,
    repeats: int,
    on_run: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Runs all runners interleaved, and returns their times by name.

    Args:
        runners: The runners by name.
        warmup: Rounds that are not measured.
        repeats: Rounds that are measured.
        on_run: Called after every run.

    Raises:
        DipgoError: A run yields NaN or infinity: such a run may take another time than a real one.
    """
    inputs = {name: random_inputs(runner) for name, runner in runners.items()}
    measured: dict[str, list[RunTimes]] = {name: [] for name in runners}
    for turn in range(warmup + repeats):
        for name, runner in runners.items():
            for output, array in runner.run(inputs[name]).items():
                check_finite(f"{runner.export.path}, {output}", array)
            on_run()
            assert runner.times is not None
            if turn >= warmup:
                measured[name].append(runner.times)
    return {name: _summary(times) for name, times in measured.items()}


def _summary(times: Sequence[RunTimes]) -> Timing:
    segment_runs = {name: tuple(run.segments[name] for run in times) for name in times[0].segments}
    return Timing(
        total=median(run.total for run in times),
        segments={name: median(runs) for name, runs in segment_runs.items()},
        overhead=median(run.overhead for run in times),
        runs=tuple(run.total for run in times),
        segment_runs=segment_runs,
    )


def random_inputs(runner: Runner, seed: int = 0) -> dict[str, Any]:
    """Returns normal noise for floats, zeros for labels, 7.5 for the guidance scale."""
    generator = np.random.default_rng(seed)
    return {
        name: _random(name, tensor_type, generator) for name, tensor_type in runner.inputs.items()
    }


def _random(name: str, tensor_type: TensorType, generator: np.random.Generator) -> Any:
    if name == "guidance_scale":
        return 7.5
    if tensor_type.dtype in ("i64", "i32"):
        return np.zeros(tensor_type.shape, np.int64 if tensor_type.dtype == "i64" else np.int32)
    return generator.standard_normal(tensor_type.shape).astype(np.float32)


def ideal_speedup(runner: Runner, against: Runner) -> float:
    """Returns the ratio of the MACs of `against` to those of `runner`, attention included."""
    own, other = plan_cost(runner.export.plan), plan_cost(against.export.plan)
    return (other.macs + other.attention_macs) / (own.macs + own.attention_macs)
