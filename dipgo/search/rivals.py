"""Rivals: what other methods skip, at a kept share, as SubNets of the same model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.probe import probe
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules import RULES
from dipgo.schedules.activation_changes import Changes
from dipgo.search.calibrate import OnGate, activation_changes, removal_losses
from dipgo.search.examples import Examples
from dipgo.search.losses import DISTANCES
from dipgo.search.problem import Problem
from dipgo.search.supernet.supernet import SuperNet

LONGEST_LAG = 10
"""Of SmoothCache, whose paper measures 3: cheaper SubNets than that allows are asked for here."""


class Rivals:
    """Makes rivals' SubNets, and has the `Inputs` of their rules: measured once, when needed.

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
        """The SubNet of one of RULES that costs nearest to `kept`, at most 0.0125 above it.

        Raises DipgoError for a method that cannot, or lacks what it needs.
        """
        return RULES[method].meet(self, self.kept, kept)

    def kept(self, subnet: SubNet) -> float:
        """The share of the dense cost that a SubNet keeps; all gates of a shorter one are on."""
        steps, dense_steps = subnet.num_inference_steps, self.dense.num_inference_steps
        if steps < dense_steps:
            return self.evaluations_at(steps) / self.evaluations_at(dense_steps)
        return self.problem.cost.kept(subnet.gates)

    @cached_property
    def macs(self) -> dict[str, int]:
        """MACs of one call of each block."""
        return {node.name: node.macs for node in self.problem.traced.graph.blocks}

    @property
    def subnet(self) -> SubNet:
        """`of`. Raises DipgoError where there is none."""
        if self.of is None:
            raise _not_given("--of", "a SubNet whose busiest timesteps are to be taken")
        return self.of

    @property
    def path(self) -> Path:
        """`router`. Raises DipgoError where there is none."""
        if self.router is None:
            raise _not_given("--router", "the file of a Learning-to-Cache router")
        return self.router

    def timesteps_at(self, steps: int) -> tuple[float, ...]:
        """The scheduler's timesteps at another number of steps. Raises DipgoError."""
        source, scheduler = self.problem.source, self.problem.scheduler
        options = source.timestep_options(scheduler, self.problem.geometry, steps)
        return probe(scheduler, steps, **options).timesteps

    def evaluations_at(self, steps: int) -> int:
        """How often the denoiser runs at another number of steps."""
        sampler = self.problem.sampler
        return steps + len(sampler.rows) - sampler.num_inference_steps

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


def _not_given(option: str, expected: str) -> DipgoError:
    return DipgoError(option, found="nothing", expected=expected, remedy=f"give {option} FILE")
