"""Stages of a search: scores by gradient, a choice of gates, exchanges, weights for reuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.common.staged import not_writable
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.inventory import find_vae
from dipgo.search.cost.budget import check_target
from dipgo.search.cost.select import bisect_threshold, fill_budget, sweep_threshold
from dipgo.search.examples import Examples
from dipgo.search.fit_gaps import as_filters, as_rows, as_table
from dipgo.search.gradient.optimise import Decode, Optimisation
from dipgo.search.guards import check_finite
from dipgo.search.log import OnProgress, Progress, ignore
from dipgo.search.losses import DISTANCES, without_logarithm
from dipgo.search.measure_errors import Measurement
from dipgo.search.problem import Problem
from dipgo.search.refine.exchange import exchange
from dipgo.search.refine.hard_trajectories import Gates, Trajectories
from dipgo.search.refine.initial_gates import regular_rows
from dipgo.search.refine.train_gap_weights import train_reuse
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet.supernet import SuperNet

SELECTIONS = {
    "fill": fill_budget,
    "bisection": bisect_threshold,
    "sweep": sweep_threshold,
}


class Search:
    """A search; each stage has its own checkpoint file in the folder `checkpoint`.

    Args:
        problem: The model, and what its calls cost.
        prompts: The prompts to search with.
        settings: The choices and numbers of the search.
        kept: The share of the dense cost to keep.
        accelerator: An `accelerate.Accelerator`.
        checkpointing: Whether activations are computed twice, to keep fewer of them.
        checkpoint: The folder to save to and resume from.
        on_progress: Called after every iteration.

    Raises:
        DipgoError: The share is out of reach with the filters' cost, or the folder cannot be made.
    """

    def __init__(
        self,
        problem: Problem,
        prompts: Sequence[str],
        settings: SearchSettings,
        kept: float,
        accelerator: Any,
        *,
        checkpointing: bool = True,
        checkpoint: Path | None = None,
        on_progress: OnProgress = ignore,
    ) -> None:
        scales = problem.scales(settings.guidance_scale)
        settings = replace(settings, guidance_scale=scales[0] if len({*scales}) == 1 else scales)
        self.settings, self.kept = settings, kept
        guided = settings.reuse_halves and problem.geometry.guidance
        if settings.reuse_terms and settings.reuse_filter:
            problem = problem.with_filters(settings.reuse_terms, guided, settings.reuse_filter)
            check_target(problem.cost, kept)
        self.problem = problem
        self.accelerator, self.on_progress = accelerator, on_progress
        self.folder = checkpoint
        if checkpoint is not None:
            _make_folder(checkpoint)
        self.distance = DISTANCES[settings.loss]
        self.net = SuperNet(
            problem.traced,
            problem.sampler,
            problem.blocks,
            problem.backup,
            checkpointing=checkpointing,
            skip_closed=settings.estimator == "relaxed",
            halves=guided,
        )
        self.examples = Examples(
            problem,
            self.net,
            prompts,
            count=settings.pool,
            scales=scales,
            seed=settings.seed,
            same_noise=settings.same_noise,
            negative_prompt=settings.negative_prompt,
        )
        self.measurement = Measurement(
            problem,
            self.net,
            prompts,
            scales=scales,
            settings=settings,
        )
        self.identity = {
            "model": problem.source.config_sha256,
            "weights": problem.weights_sha256,
            "scheduler": problem.sampler.scheduler_class,
            "steps": problem.sampler.num_inference_steps,
            "eta": problem.sampler.eta,
            "blocks": list(problem.blocks),
            "backup": list(problem.backup),
            "cost": [problem.cost.share(block) for block in problem.blocks],
            "kept": kept,
            "batch": problem.geometry.batch,
            "prompts": self.examples.prompts,
            "processes": accelerator.num_processes,
            **_plain(settings),
        }

    def run(self) -> SubNet:
        """Runs all stages that the settings ask for and returns the SubNet."""
        scores = self.scores() if self.settings.iterations else None
        gates = self.start() if scores is None else self.choose(scores)
        if self.settings.exchanges:
            gates = self.exchange(gates)
        reuse = self.reuse(gates) if self.settings.reuse_terms else {}
        provenance = {
            "method": "dipgo",
            "kept": round(self.problem.cost.kept(gates), 6),
            "guidance": self.problem.geometry.guidance,
            "eta": self.problem.sampler.eta,
            "batch": self.problem.geometry.batch,
            **_plain(self.settings),
        }
        subnet = self.problem.subnet(gates, provenance, scores, **reuse)
        return replace(subnet, fitted=self.measurement.fitted(subnet))

    def scores(self) -> NDArray[np.float64]:
        """Returns keep-scores f64[steps, blocks], found by gradient."""
        optimisation = Optimisation(
            self.problem,
            self.net,
            self.examples,
            self.settings,
            self.kept,
            self.accelerator,
            self._decode(),
        )
        return optimisation.run(
            identity=self.identity,
            checkpoint=self._file("gates"),
            on_progress=self.on_progress,
        )

    def choose(self, scores: NDArray[np.float64]) -> Gates:
        """Returns gates bool[steps, blocks] by their scores, within the kept share."""
        return SELECTIONS[self.settings.selection](scores, self.problem.cost, self.kept)

    def start(self) -> Gates:
        """Returns the gates of regular rows that are best on one example; used without scores.

        Raises:
            DipgoError: No regular rows fit the kept share.
        """
        tables, first = regular_rows(self.problem.cost, self.kept), self._on(1)
        return min(tables, key=lambda gates: first.run(gates).distance)

    def exchange(self, gates: Gates) -> Gates:
        """Returns the best gates that the exchange leads to from `gates`."""
        cost, kept = self.problem.cost, self.kept
        return exchange(
            self._trajectories,
            cost,
            gates,
            kept,
            tries=self.settings.exchanges,
            seed=self.settings.seed,
            identity=self.identity,
            checkpoint=self._file("exchange"),
            on_try=lambda done, total, distance: self._report("exchange", done, total, distance),
        )

    def reuse(self, gates: Gates) -> dict[str, Any]:
        """Returns weights of the latest predictions and of their halves, or filters.

        The keys are the names of SubNet's fields. All are fitted on all examples; weights are then
        trained, filters are not: they have so many numbers that training overfits them to the
        examples (docs/results/results.md).
        """
        terms = self._terms
        everything = self._on(self.settings.pool, self.settings.reuse_filter)
        fitted = everything.run(gates, remember=False)
        check_finite(torch.tensor(fitted.distance), 0, "the distance of what is fitted")
        weights = as_table(fitted.fits, len(gates), terms)
        kinds = len(self.net.predicted)
        if self.settings.reuse_filter:
            gaps = [fit.gap for fit in fitted.fits]
            return {"reuse_filters": as_filters(weights, gaps, gates, kinds) if gaps else None}
        if self.settings.reuse_iterations and fitted.fits:
            weights = train_reuse(
                self.net,
                self.examples,
                fitted,
                terms,
                iterations=self.settings.reuse_iterations,
                distance=self.distance,
                identity=self.identity,
                checkpoint=self._file("reuse"),
                on_iteration=lambda done, total, loss: self._report("reuse", done, total, loss),
            )
        rows = [as_rows(weights[:, half::kinds], gates) for half in range(kinds)]
        return dict(zip(("reuse", "reuse_unconditional"), rows, strict=False))

    @property
    def _terms(self) -> int:
        """The number of weights of a row."""
        return self.settings.reuse_terms * len(self.net.predicted)

    @cached_property
    def _trajectories(self) -> Trajectories:
        """The trajectories that choices are judged on."""
        return self._on(min(self.settings.exchange_examples, self.settings.pool))

    def _on(self, count: int, filter_size: int = 0) -> Trajectories:
        """Returns trajectories of the first `count` examples."""
        judge = DISTANCES[without_logarithm(self.settings.loss)]
        examples = [self.examples[index] for index in range(count)]
        return Trajectories(self.net, examples, self._terms, judge, filter_size)

    def _report(self, stage: str, done: int, total: int, distance: float) -> None:
        self.on_progress(Progress(stage, done, total, distance, distance, self.kept))

    def _file(self, stage: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{stage}.safetensors"

    def _decode(self) -> Decode:
        """Returns the VAE's decoder if pictures are compared, else the identity."""
        if self.settings.compare == "latents":
            return lambda latents: latents
        vae = find_vae(self.problem.source.pipeline)
        if vae is None:
            raise DipgoError(
                f"{setting('compare')} images",
                found=f"no VAE in {self.problem.source.name}",
                expected="a pipeline that makes pictures of latents",
                remedy=f"use {setting('compare')} latents",
            )
        model = self.problem.source.at(self.problem.geometry)
        return model.decoder(vae, torch.zeros(model.latent_shape))


def _plain(settings: SearchSettings) -> dict[str, Any]:
    """Returns the settings as JSON has them, with lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path, "a folder that cannot be made", error) from None
