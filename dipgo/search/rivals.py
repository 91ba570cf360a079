"""Rivals: what other methods skip, at a kept share, as SubNets of the same model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.probe import probe
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.activation_changes import Changes
from dipgo.schedules.base import at_kept, at_kept_by_bisection
from dipgo.schedules.block_caching import block_caching
from dipgo.schedules.deepcache import deepcache, deepcache_nonuniform
from dipgo.schedules.faster_diffusion import faster_diffusion_with
from dipgo.schedules.fewer_steps import count_steps, fewer_steps, steps_of
from dipgo.schedules.fora import fora
from dipgo.schedules.greedy import greedy_at_kept
from dipgo.schedules.knapsack import knapsack
from dipgo.schedules.learning_to_cache import learning_to_cache
from dipgo.schedules.random_gates import random_gates
from dipgo.schedules.smooth_cache import smooth_cache
from dipgo.search.calibrate import OnGate, activation_changes, removal_losses
from dipgo.search.examples import Examples
from dipgo.search.losses import DISTANCES
from dipgo.search.problem import Problem
from dipgo.search.supernet.supernet import SuperNet

LONGEST_LAG = 10
"""Of SmoothCache, whose paper measures 3: cheaper SubNets than that allows are asked for here."""


class Rivals:
    """Makes rivals' SubNets. What they must know of the model is measured once, when needed.

    `count` batches of prompts are measured. `of` is the SubNet whose timesteps `steps-of` takes,
    `router` the file of `l2c`.
    """

    def __init__(
        self,
        problem: Problem,
        prompts: Sequence[str] = (),
        *,
        guidance_scale: float = 7.5,
        count: int = 1,
        seed: int = 0,
        of: SubNet | None = None,
        router: Path | None = None,
        on_gate: OnGate = lambda done, total: None,
    ) -> None:
        self.problem, self.prompts, self.seed = problem, prompts, seed
        self.guidance_scale, self.count = guidance_scale, count
        self.of, self.router, self.on_gate = of, router, on_gate
        self.dense = problem.subnet(np.ones(problem.cost.shape, np.bool_), {"method": "dense"})

    def make(self, method: str, kept: float) -> SubNet:
        """The SubNet of one of METHODS that costs nearest to `kept`, at most 0.0125 above it.

        Raises DipgoError for a method that cannot, or lacks what it needs.
        """
        return METHODS[method](self, kept)

    def kept(self, subnet: SubNet) -> float:
        """The share of the dense cost that a SubNet of the same steps keeps."""
        return self.problem.cost.kept(subnet.gates)

    @property
    def _macs(self) -> dict[str, int]:
        return {node.name: node.macs for node in self.problem.traced.graph.blocks}

    @cached_property
    def _net(self) -> SuperNet:
        problem = self.problem
        return SuperNet(problem.traced, problem.sampler, problem.blocks, problem.backup)

    @cached_property
    def _examples(self) -> Examples:
        if not self.prompts:
            raise DipgoError(
                "--prompts",
                found="none",
                expected="prompts: this method measures the model first",
                remedy="give a file with one prompt a line",
            )
        return Examples(
            self.problem,
            self._net,
            self.prompts,
            count=self.count,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
        )

    @cached_property
    def changes(self) -> Changes:
        """How much blocks change from step to step, over all examples."""
        examples = self._examples
        found = [
            activation_changes(self._net, examples[index].inputs, LONGEST_LAG).relative
            for index in range(self.count)
        ]
        return Changes(self.problem.blocks, np.mean(found, axis=0))

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """What each gate's removal alone costs, f64[steps, blocks]."""
        tables = []
        for index in range(self.count):
            example = self._examples[index]
            tables.append(
                removal_losses(
                    self._net,
                    example.inputs,
                    example.dense,
                    loss=DISTANCES["l2"],
                    on_gate=self.on_gate,
                )
            )
        return np.asarray(np.mean(tables, axis=0), np.float64)

    def _fewer_steps(self, kept: float) -> SubNet:
        steps = self.problem.sampler.num_inference_steps
        extra = len(self.problem.sampler.rows) - steps  # PNDM evaluates its second step twice
        count = count_steps(kept, steps, lambda count: count + extra)
        source, scheduler = self.problem.source, self.problem.scheduler
        options = source.timestep_options(scheduler, self.problem.geometry, count)
        shorter = probe(scheduler, count, **options)
        return fewer_steps(self.dense, count, shorter.timesteps)

    def _steps_of(self, kept: float) -> SubNet:
        if self.of is None:
            raise _not_given("--of", "a SubNet whose busiest timesteps are to be taken")
        subnet = self.of
        counts = range(1, len(subnet.timesteps) + 1)
        return at_kept(lambda count: steps_of(subnet, self._macs, count), counts, self.kept, kept)

    def _random(self, kept: float) -> SubNet:
        shares = np.linspace(1.0, 0.0, 1001).tolist()
        return at_kept_by_bisection(
            lambda share: random_gates(self.dense, share, seed=self.seed), shares, self.kept, kept
        )

    def _intervals(self, make: Callable[[SubNet, int], SubNet], kept: float) -> SubNet:
        counts = range(1, len(self.dense.timesteps) + 1)
        return at_kept(lambda interval: make(self.dense, interval), counts, self.kept, kept)

    def _faster_diffusion(self, kept: float) -> SubNet:
        counts = range(1, len(self.dense.timesteps) + 1)
        return at_kept(
            lambda count: faster_diffusion_with(self.dense, count), counts, self.kept, kept
        )

    def _smooth_cache(self, kept: float) -> SubNet:
        thresholds = np.geomspace(1e-3, 3.0, 200).tolist()
        return at_kept(
            lambda one: smooth_cache(self.dense, self.changes, one), thresholds, self.kept, kept
        )

    def _block_caching(self, kept: float) -> SubNet:
        thresholds = np.geomspace(1e-3, 30.0, 300).tolist()
        return at_kept(
            lambda one: block_caching(self.dense, self.changes, one), thresholds, self.kept, kept
        )

    def _greedy(self, kept: float) -> SubNet:
        return greedy_at_kept(self.dense, self.losses, self.kept, kept)

    def _knapsack(self, kept: float) -> SubNet:
        """A knapsack does not see what dies with a block: it is given more until that is used."""
        shares = np.linspace(kept, min(1.0, kept + 0.4), 41).tolist()
        return at_kept(
            lambda share: knapsack(self.dense, self.losses, self._macs, share),
            shares,
            self.kept,
            kept,
        )

    def _router(self, kept: float) -> SubNet:
        if self.router is None:
            raise _not_given("--router", "the file of a Learning-to-Cache router")
        path = self.router
        thresholds = np.linspace(0.0, 1.0, 101)[1:-1].tolist()  # their logits are finite
        return at_kept(
            lambda one: learning_to_cache(path, self.dense, threshold=one),
            thresholds,
            self.kept,
            kept,
        )


def _not_given(option: str, expected: str) -> DipgoError:
    return DipgoError(option, found="nothing", expected=expected, remedy=f"give {option} FILE")


METHODS: dict[str, Callable[[Rivals, float], SubNet]] = {
    "fewer-steps": Rivals._fewer_steps,
    "steps-of": Rivals._steps_of,
    "random": Rivals._random,
    "deepcache": lambda rivals, kept: rivals._intervals(deepcache, kept),
    "deepcache-nonuniform": lambda rivals, kept: rivals._intervals(deepcache_nonuniform, kept),
    "faster-diffusion": Rivals._faster_diffusion,
    "fora": lambda rivals, kept: rivals._intervals(fora, kept),
    "smooth-cache": Rivals._smooth_cache,
    "block-caching": Rivals._block_caching,
    "greedy": Rivals._greedy,
    "knapsack": Rivals._knapsack,
    "l2c": Rivals._router,
}
