"""Makes examples: batches of prompts with noise, and the states of each dense trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dipgo.common.torch_noise import draw_noise
from dipgo.ir.fitted import Scales
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


GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""The golden ratio's fraction: its multiples modulo 1 are spread evenly, however many there are."""

FIRST_NOISE = 1_000_000
"""The seed of the first noise: far from the small seeds that people draw pictures with."""


class Examples:
    """Batches of examples, used in turn: prompts in a shuffled order, each with its own noise.

    Args:
        problem: The model, and the size of a batch.
        net: The SuperNet, which runs the dense trajectories.
        prompts: The prompts; they repeat when there are fewer than the batches need.
        count: The number of batches.
        scales: The range of guidance scales; each batch has one of it, the first its middle.
        seed: The seed of the order and of the noise; the same seed gives the same examples.
        same_noise: Whether all pictures start from the same noise, as in DiP-GO.
        negative_prompt: The negative prompt of all pictures; None for none.
    """

    def __init__(
        self,
        problem: Problem,
        net: SuperNet,
        prompts: Sequence[str],
        *,
        count: int,
        scales: Scales,
        seed: int = 0,
        same_noise: bool = False,
        negative_prompt: str | None = None,
    ) -> None:
        self.problem, self.net, self.count = problem, net, count
        self.scales, self.seed, self.same_noise = scales, seed, same_noise
        self.negative_prompt = negative_prompt
        order = np.random.default_rng(seed).permutation(len(prompts))
        self.prompts = [prompts[index] for index in order]
        self._made: dict[int, Example] = {}

    def __getitem__(self, index: int) -> Example:
        """Returns batch `index` modulo their number; the first access runs its dense trajectory."""
        index %= self.count
        if index not in self._made:
            self._made[index] = self.with_dense(self.inputs(index, self._scale(index)))
        return self._made[index]

    def _scale(self, index: int) -> float:
        """Returns a batch's guidance scale: the first few batches are as spread as all are."""
        lowest, highest = self.scales
        return lowest + (highest - lowest) * ((0.5 + index * GOLDEN_RATIO) % 1)

    def with_dense(self, inputs: dict[str, Tensor]) -> Example:
        """Runs the dense trajectory of one batch's inputs."""
        return Example(inputs, self._dense_states(inputs))

    @torch.no_grad()
    def _dense_states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        walk = self.net.begin(inputs)
        for _ in self.net.sampler.rows:
            self.net.advance(walk, None)
        return (*walk.inputs, walk.result())

    @property
    def _device(self) -> torch.device:
        return next(self.problem.source.denoiser.parameters()).device

    def _rows(self, index: int) -> range:
        batch = self.problem.geometry.batch
        return range(index * batch, (index + 1) * batch)

    def prompts_of(self, index: int) -> list[str]:
        """Returns the prompts of batch `index`."""
        return [self.prompts[row % len(self.prompts)] for row in self._rows(index)]

    def inputs(
        self, index: int, scale: float, negative_prompts: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Returns the inputs of batch `index` at a guidance scale.

        Args:
            index: The batch.
            scale: The guidance scale, which nothing reads without guidance.
            negative_prompts: One for each picture, in place of that of all.
        """
        geometry, graph = self.problem.geometry, self.problem.traced.graph
        rows, prompts = self._rows(index), self.prompts_of(index)
        if not negative_prompts and self.negative_prompt is not None:
            negative_prompts = [self.negative_prompt] * len(prompts)
        inputs = encode_prompts(self.problem.source, prompts, geometry, negative_prompts)
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
            inputs["guidance_scale"] = torch.tensor(scale, device=self._device)
        return inputs
