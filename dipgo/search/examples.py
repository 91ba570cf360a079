"""Makes examples: batches of prompts with noise, and the states of each dense trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dipgo.common.torch_noise import draw_noise
from dipgo.ir.sampler import draw_name
from dipgo.models.prompts import encode_prompts
from dipgo.search.problem import Problem
from dipgo.search.supernet.supernet import SuperNet


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs of one trajectory, and the states of the dense one.

    Attributes:
        inputs: The inputs of the traced graph but for the timestep, by name.
        states: The denoiser's inputs f32[B, C, h, w], one an evaluation, then the final latents.
    """

    inputs: dict[str, Tensor]
    states: tuple[Tensor, ...]

    @property
    def dense(self) -> Tensor:
        """The final latents of the dense trajectory, f32[B, C, h, w]."""
        return self.states[-1]


FIRST_NOISE = 1_000_000
"""The seed of the first noise: far from the small seeds that people draw pictures with."""


class Examples:
    """Batches of examples, used in turn: prompts in a shuffled order, each with its own noise.

    Args:
        problem: The model, and the size of a batch.
        net: The SuperNet, which runs the dense trajectories.
        prompts: The prompts; they repeat when there are fewer than the batches need.
        count: The number of batches.
        guidance_scale: The scale of the guidance.
        seed: The seed of the order and of the noise; the same seed gives the same examples.
        same_noise: Whether all pictures start from the same noise, as in DiP-GO.
    """

    def __init__(
        self,
        problem: Problem,
        net: SuperNet,
        prompts: Sequence[str],
        *,
        count: int,
        guidance_scale: float,
        seed: int = 0,
        same_noise: bool = False,
    ) -> None:
        self.problem, self.net, self.count = problem, net, count
        self.guidance_scale, self.seed, self.same_noise = guidance_scale, seed, same_noise
        order = np.random.default_rng(seed).permutation(len(prompts))
        self.prompts = [prompts[index] for index in order]
        self._made: dict[int, Example] = {}

    def __getitem__(self, index: int) -> Example:
        """Returns batch `index` modulo their number; the first access runs its dense trajectory."""
        index %= self.count
        if index not in self._made:
            inputs = self._inputs(index)
            self._made[index] = Example(inputs, self._dense_states(inputs))
        return self._made[index]

    @torch.no_grad()
    def _dense_states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        walk = self.net.begin(inputs)
        for _ in self.net.sampler.rows:
            self.net.advance(walk, None)
        return (*walk.inputs, walk.result())

    @property
    def _device(self) -> torch.device:
        return next(self.problem.source.denoiser.parameters()).device

    def _inputs(self, index: int) -> dict[str, Tensor]:
        geometry, graph = self.problem.geometry, self.problem.traced.graph
        rows = range(index * geometry.batch, (index + 1) * geometry.batch)
        prompts = [self.prompts[row % len(self.prompts)] for row in rows]
        inputs = encode_prompts(self.problem.source, prompts, geometry)
        shape = graph.types[self.net.state].shape
        first = FIRST_NOISE + self.seed
        seeds = [first if self.same_noise else first + row for row in rows]
        sampler = self.net.sampler
        draws = draw_noise(seeds, shape, (0, *sampler.draws))
        draws[0] *= np.float32(self.problem.sampler.start.noise_scale)
        names = {0: self.net.state} | {index: draw_name(index) for index in sampler.draws}
        for index, noise in draws.items():
            inputs[names[index]] = torch.from_numpy(noise).to(self._device)
        if geometry.guidance:
            inputs["guidance_scale"] = torch.tensor(self.guidance_scale, device=self._device)
        return inputs
