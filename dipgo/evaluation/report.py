"""The report: all figures of an evaluation as plain data, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dipgo.evaluation.intervals import METHOD, Interval
from dipgo.evaluation.pairs import Pair

FORMAT, VERSION = "dipgo.evaluation", 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric: its value for every pair, and their mean with its confidence interval."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds a run of the engines, `time_batch` pictures: medians, dense by turns with it."""

    seconds: float
    dense_seconds: float
    speedup: float
    runs: tuple[float, ...]
    dense_runs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """MACs a picture, and shares: of the SubNet's own dense plan, and of the evaluation's dense.

    Without attention products, as the papers count; `…_with_attention` with them.
    """

    macs: int
    macs_with_attention: int
    macs_kept: float
    macs_kept_with_attention: float
    macs_of_dense: float
    macs_of_dense_with_attention: float


@dataclass(frozen=True, slots=True)
class Result:
    """One SubNet, or dense, measured.

    `metrics` are `ssim`, `psnr_db` and `latent_error` to dense, and where asked for `caption`
    (1 where all heads read it correctly) and `clip`. `ssim_minus_first` is paired.
    """

    name: str
    steps: int
    scheduler: str
    evaluations: int
    cost: Cost
    metrics: Mapping[str, Measured]
    ssim_minus_first: Interval | None
    captions: Mapping[str, float] | None
    frechet: float | None
    fid: float | None
    time: Timed | None


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: what it was made with, dense, and every SubNet in the order given."""

    machine: Mapping[str, str]
    model: str
    model_sha256: str
    guidance: float
    batch: int
    time_batch: int
    threads: int
    pairs: tuple[Pair, ...]
    reference_pictures: int
    dense: Result
    subnets: tuple[Result, ...]

    def to_json(self) -> str:
        """What is infinite (PSNR of equal pictures) is null."""
        head = {"format": FORMAT, "version": VERSION, "intervals": METHOD}
        return json.dumps(_finite({**head, **asdict(self)}), indent=1, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
