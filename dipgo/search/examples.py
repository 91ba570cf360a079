"""Examples: batches of prompts with noise, and where the dense trajectory ends on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dipgo.models.prompts import encode_prompts
from dipgo.noise import initial_noise
from dipgo.samplers import init_noise_sigma
from dipgo.search.problem import Problem
from dipgo.search.supernet import SuperNet


@dataclass
class Example:
    """Inputs of one trajectory; `dense` is where it ends, f32[B, C, h, w], once it is known."""

    inputs: dict[str, Tensor]
    dense: Tensor | None = None


FIRST_NOISE = 1_000_000
"""Seed of the first noise: far from the small seeds that people draw pictures with."""


class Examples:
    """`count` batches, used in turn: prompts in a shuffled order, each with noise of its own.

    `same_noise` gives all the same, as DiP-GO has it. The same `seed` gives the same examples.
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
        """Batch `index` modulo their number; its dense end is computed when first asked for."""
        index %= self.count
        if index not in self._made:
            example = Example(self._inputs(index))
            gates = torch.ones(len(self.net.sampler.timesteps), len(self.net.blocks))
            with torch.no_grad():
                example.dense = self.net(gates.to(self._device), example.inputs)
            self._made[index] = example
        return self._made[index]

    @property
    def _device(self) -> torch.device:
        return next(self.problem.source.denoiser.parameters()).device

    def _inputs(self, index: int) -> dict[str, Tensor]:
        geometry, graph = self.problem.geometry, self.problem.traced.graph
        rows = range(index * geometry.batch, (index + 1) * geometry.batch)
        prompts = [self.prompts[row % len(self.prompts)] for row in rows]
        inputs = encode_prompts(self.problem.source, prompts, geometry)
        shape = (1, *graph.types[self.net.state].shape[1:])
        first = FIRST_NOISE + self.seed
        seeds = [first if self.same_noise else first + row for row in rows]
        noise = np.concatenate([initial_noise(seed, shape) for seed in seeds])
        sigma = init_noise_sigma(self.problem.scheduler, self.net.sampler.num_inference_steps)
        inputs[self.net.state] = torch.from_numpy(noise * np.float32(sigma)).to(self._device)
        if geometry.guidance:
            inputs["guidance_scale"] = torch.tensor(self.guidance_scale, device=self._device)
        return inputs
