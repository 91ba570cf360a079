"""Computes the figures of a variant from what was drawn and timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.ratios import paired_ratio
from dipgo.evaluate.cache import Drawn, PlanFacts, Times
from dipgo.evaluate.judges.load import Judges
from dipgo.evaluate.metrics import Interval, interval, latent_error, psnr, ssim
from dipgo.evaluate.report import Cost, Measured, Result, Timed
from dipgo.evaluate.variants import Settings, Variant

SSIM = "ssim"


def measure(
    variant: Variant,
    drawn: Drawn,
    dense: Drawn,
    first_ssim: Sequence[float] | None,
    settings: Settings,
    judges: Judges,
    time: Timed | None,
) -> Result:
    """Measures a variant's pictures against dense's.

    Args:
        variant: The variant that was drawn with.
        drawn: Its latents and pictures.
        dense: Dense's latents and pictures.
        first_ssim: SSIM f64[pairs] of the first SubNet; None for the first itself, and for dense.
        settings: Settings that all variants share.
        judges: Further measures of pictures.
        time: Seconds a run, None if nothing was timed.
    """
    hits = judges.read(drawn.pictures) if judges.classifier else None
    values = {
        SSIM: ssim(drawn.pictures, dense.pictures),
        "psnr_db": psnr(drawn.pictures, dense.pictures),
        "latent_error": latent_error(drawn.latents, dense.latents),
    }
    if hits:
        values["caption"] = np.all(list(hits.values()), axis=0).astype(np.float64)
    if judges.clip:
        prompts = [pair.prompt for pair in settings.pairs]
        values["clip"] = judges.clip(drawn.pictures, prompts)
    return Result(
        name=variant.name,
        steps=variant.steps,
        scheduler=drawn.plan.scheduler,
        evaluations=drawn.plan.evaluations,
        cost=_cost(drawn.plan, dense.plan, settings.batch),
        metrics={name: _measured(column) for name, column in values.items()},
        ssim_minus_first=_difference(values[SSIM], first_ssim),
        captions={head: float(hit.mean()) for head, hit in hits.items()} if hits else None,
        frechet=judges.frechet(drawn.pictures) if judges.frechet else None,
        fid=judges.fid(drawn.pictures) if judges.fid else None,
        time=time,
    )


def timed(times: Times) -> Timed:
    """Returns the medians of interleaved runs, and the speedup turn by turn with its interval."""
    ratio = paired_ratio(times.dense_runs, times.runs)
    return Timed(
        seconds=median(times.runs),
        dense_seconds=median(times.dense_runs),
        speedup=ratio.median,
        speedup_interval=(ratio.low, ratio.high),
        speedup_confidence=ratio.confidence,
        runs=times.runs,
        dense_runs=times.dense_runs,
    )


def dense_time(all_times: Sequence[Times]) -> Timed | None:
    """Returns dense's time next to itself, over its runs with every SubNet; None without runs."""
    runs = tuple(run for times in all_times for run in times.dense_runs)
    return timed(Times(runs, runs)) if runs else None


def _measured(values: NDArray[np.float64]) -> Measured:
    return Measured(**asdict(interval(values)), values=tuple(values.tolist()))


def _difference(values: NDArray[np.float64], first: Sequence[float] | None) -> Interval | None:
    return None if first is None else interval(values - np.asarray(first))


def _cost(plan: PlanFacts, dense: PlanFacts, batch: int) -> Cost:
    total = plan.macs + plan.attention_macs
    return Cost(
        macs=plan.macs // batch,
        macs_with_attention=total // batch,
        macs_kept=plan.kept,
        macs_kept_with_attention=plan.kept_with_attention,
        macs_of_dense=plan.macs / dense.macs,
        macs_of_dense_with_attention=total / (dense.macs + dense.attention_macs),
    )
