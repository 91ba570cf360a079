"""Exports variants, draws the pairs with each, times them, and keeps the results."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.machine import describe_machine
from dipgo.common.warn import warn
from dipgo.compiler.request import silent
from dipgo.compiler.settings import DENSE
from dipgo.engines.timing import time_runners
from dipgo.evaluate.cache import (
    Drawn,
    PlanFacts,
    Times,
    read_drawn,
    read_times,
    write_drawn,
    write_times,
)
from dipgo.evaluate.fitted import without_fitted
from dipgo.evaluate.pairs import Pair
from dipgo.evaluate.variants import Settings, Variant, digest, variant_key
from dipgo.export import export
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.plan.plan import evaluations
from dipgo.models.model import Source
from dipgo.run.pipeline import Pipeline

WARMUP = 1

T = TypeVar("T")

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""A context manager of a description and a total, which yields a function of the count done."""


@contextmanager
def no_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that shows no progress."""
    yield lambda done: None


@dataclass(frozen=True, slots=True)
class Progress:
    """The display of progress: stages, and bars for what is countable."""

    stage: Callable[[str], AbstractContextManager[object]] = silent
    bar: Bar = no_bar


class Studio:
    """Draws and times with one model; results and exports are kept in `folder`.

    An export stays until `discard`, so that a run that was stopped need not make it again.
    """

    def __init__(
        self, source: Source, model: str, settings: Settings, folder: Path, progress: Progress
    ) -> None:
        self._source, self._model = source, model
        self._settings, self._folder, self.progress = settings, folder, progress

    def draw(self, variant: Variant) -> Drawn:
        """Returns latents and pictures of all pairs; a damaged cached file is made again.

        Raises:
            DipgoError: The export fails.
        """
        path = self._folder / f"{self._key(variant, self._settings.batch)}.npz"
        kept = _kept(path, lambda path: read_drawn(path, len(self._settings.pairs)))
        if kept is None:
            kept = self._draw(variant)
            write_drawn(path, kept)
        return kept

    def time(self, variant: Variant, dense: Variant, repeats: int) -> Times:
        """Times a variant and dense interleaved, in one process.

        Times of another machine are not used again; a damaged cached file is made again.

        Raises:
            DipgoError: An export fails.
        """
        batch = self._settings.time_batch
        setting = [repeats, self._settings.threads, self._key(dense, batch), _machine()]
        path = self._folder / f"{self._key(variant, batch)}-{digest(setting)}.json"
        kept = _kept(path, read_times)
        if kept is None:
            kept = self._time(variant, dense, repeats)
            write_times(path, kept)
        return kept

    def discard(self, *variants: Variant) -> None:
        """Removes exports that are no longer needed."""
        batches = {self._settings.batch, self._settings.time_batch}
        for variant, batch in itertools.product(variants, batches):
            shutil.rmtree(self._export_path(variant, batch), ignore_errors=True)

    def _key(self, variant: Variant, batch: int) -> str:
        return variant_key(self._model, variant, self._settings, batch)

    def _export_path(self, variant: Variant, batch: int) -> Path:
        return self._folder / f"export-{self._key(variant, batch)}"

    def _load(self, variant: Variant, batch: int) -> Pipeline:
        """Loads a variant's export, and makes it first if it is not there.

        An export appears whole or not at all, so an existing one is complete.
        """
        path = self._export_path(variant, batch)
        if not path.exists():
            with self.progress.stage(f"export {variant.name}, batch {batch}"):
                export(
                    self._source,
                    without_fitted(variant.subnet) if variant.subnet else DENSE,
                    path,
                    steps=variant.steps,
                    scheduler=variant.scheduler,
                    batch=batch,
                )
        return Pipeline.from_export(path, threads=self._settings.threads)

    def _draw(self, variant: Variant) -> Drawn:
        pairs, batch = self._settings.pairs, self._settings.batch
        pipeline = self._load(variant, batch)
        batches = [pairs[start : start + batch] for start in range(0, len(pairs), batch)]
        drawn = []
        with self.progress.bar(f"draw {len(pairs)} pictures: {variant.name}", len(pairs)) as done:
            for index, chunk in enumerate(batches):
                drawn.append(_draw_batch(pipeline, chunk, self._settings.guidance))
                done(min(len(pairs), (index + 1) * batch))
        latents, pictures = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        return Drawn(latents, pictures, _plan_facts(pipeline))

    def _time(self, variant: Variant, dense: Variant, repeats: int) -> Times:
        batch = self._settings.time_batch
        runners = {
            "this": self._load(variant, batch).runner,
            "dense": self._load(dense, batch).runner,
        }
        total = len(runners) * (WARMUP + repeats)
        count = itertools.count(1)
        with self.progress.bar(f"time {total} runs: {variant.name} and dense", total) as done:
            timings = time_runners(
                runners, warmup=WARMUP, repeats=repeats, on_run=lambda: done(next(count))
            )
        return Times(timings["this"].runs, timings["dense"].runs)


def _kept(path: Path, read: Callable[[Path], T]) -> T | None:
    """Returns an earlier result, or None if there is none that is whole; of a damaged one it warns.

    Raises:
        DipgoError: Something that is not a file has the name of one.
    """
    if not os.path.lexists(path):
        return None
    try:
        return read(path)
    except DipgoError as error:
        if not path.is_file():
            raise
        warn(f"{path}: {error.found}; it is made again")
        return None


def _draw_batch(
    pipeline: Pipeline, pairs: tuple[Pair, ...], guidance: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Returns latents f32[n, C, h, w] and pictures u8[n, H, W, 3], rounded as in a PNG file."""
    latents: NDArray[np.float32] = pipeline(
        [pair.prompt for pair in pairs],
        seed=[pair.seed for pair in pairs],
        guidance_scale=guidance,
        output_type="latent",
    ).images
    return latents, (pipeline.decode(latents) * 255).round().astype(np.uint8)


def _plan_facts(pipeline: Pipeline) -> PlanFacts:
    export_dir = pipeline.runner.export
    cost = plan_cost(export_dir.plan)
    return PlanFacts(
        scheduler=export_dir.manifest.sampler.scheduler_class,
        evaluations=evaluations(export_dir.plan),
        macs=cost.macs,
        attention_macs=cost.attention_macs,
        kept=cost.kept,
        kept_with_attention=cost.kept_with_attention,
    )


def _machine() -> dict[str, str]:
    return {name: fact for name, fact in describe_machine().items() if name != "date"}
