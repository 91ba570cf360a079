"""Makes SubNets of the same model by rival methods, at a kept share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipgo.compiler.sampler.probe import probe
from dipgo.ir.fitted import Scales
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules import RULES
from dipgo.schedules.activation_changes import Changes
from dipgo.schedules.rule import left_out
from dipgo.search.calibrate import OnGate, activation_changes, removal_losses
from dipgo.search.examples import Examples
from dipgo.search.losses import DISTANCES
from dipgo.search.problem import Problem
from dipgo.search.supernet.supernet import SuperNet

LONGEST_LAG = 10
"""The longest lag measured for SmoothCache; the paper's 3 would not allow cheap enough SubNets."""


class Rivals:
    """Makes rivals' SubNets, and provides the `Inputs` of their rules, measured once when needed.

    Args:
        problem: The model, and what its calls cost.
        prompts: The prompts to measure with.
        guidance_scale: The scale of the guidance, or a range of scales; by default that of
            diffusers' pipeline.
        count: The number of batches of prompts to measure.
        seed: The seed of everything random.
        of: The SubNet whose timesteps the rule `steps-of` takes.
        router: The file that the rule `l2c` reads.
        on_gate: Called after every gate that is measured.
    """

    def __init__(
        self,
        problem: Problem,
        prompts: Sequence[str] = (),
        *,
        guidance_scale: float | Scales | None = None,
        count: int = 1,
        seed: int = 0,
        of: SubNet | None = None,
        router: Path | None = None,
        on_gate: OnGate = lambda done, total: None,
    ) -> None:
        self.problem, self.prompts, self.seed = problem, prompts, seed
        self.scales, self.count = problem.scales(guidance_scale), count
        self.of, self.router, self.on_gate = of, router, on_gate
        self.dense = problem.subnet(np.ones(problem.cost.shape, np.bool_), {"method": "dense"})

    def make(self, method: str, kept: float) -> SubNet:
        """Returns the SubNet by one of RULES that costs nearest to `kept`, at most 0.0125 above.

        Raises:
            DipgoError: The method cannot meet the share, or lacks an input that it needs.
        """
        return RULES[method].meet(self, self.kept, kept)

    def kept(self, subnet: SubNet) -> float:
        """Returns the share of the dense cost kept by a SubNet; a shorter one has all gates on."""
        steps, dense_steps = subnet.num_inference_steps, self.dense.num_inference_steps
        if steps < dense_steps:
            return self.evaluations_at(steps) / self.evaluations_at(dense_steps)
        return self.problem.cost.kept(subnet.gates)

    @cached_property
    def macs(self) -> dict[str, int]:
        """The MACs of one call of each block."""
        return {node.name: node.macs for node in self.problem.traced.graph.blocks}

    @property
    def subnet(self) -> SubNet:
        """The SubNet `of`.

        Raises:
            DipgoError: It was left out.
        """
        if self.of is None:
            raise left_out("of")
        return self.of

    @property
    def path(self) -> Path:
        """The file `router`.

        Raises:
            DipgoError: It was left out.
        """
        if self.router is None:
            raise left_out("router")
        return self.router

    def timesteps_at(self, steps: int) -> tuple[float, ...]:
        """Returns the scheduler's timesteps at another number of steps.

        Raises:
            DipgoError: The scheduler does not allow that number.
        """
        source, scheduler = self.problem.source, self.problem.scheduler
        model = source.at(self.problem.geometry)
        loop = model.loop(scheduler, steps)
        return probe(scheduler, steps, loop=loop, channels=model.channels).timesteps

    def evaluations_at(self, steps: int) -> int:
        """Returns how often the denoiser runs at another number of steps."""
        sampler = self.problem.sampler
        return steps + len(sampler.rows) - sampler.num_inference_steps

    @cached_property
    def _net(self) -> SuperNet:
        problem = self.problem
        return SuperNet(problem.traced, problem.sampler, problem.blocks, problem.backup)

    @cached_property
    def _examples(self) -> Examples:
        if not self.prompts:
            raise left_out("prompts")
        return Examples(
            self.problem,
            self._net,
            self.prompts,
            count=self.count,
            scales=self.scales,
            seed=self.seed,
        )

    @cached_property
    def changes(self) -> Changes:
        """The mean over all examples of how much blocks change from step to step."""
        examples = self._examples
        tables = [
            activation_changes(self._net, examples[index].inputs, LONGEST_LAG).relative
            for index in range(self.count)
        ]
        return Changes(self.problem.blocks, np.mean(tables, axis=0))

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """The loss f64[steps, blocks] when one gate alone is off, the mean over all examples."""
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
