"""Measures a SubNet's errors against dense on held-out noise, at several guidance scales."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dipgo.common.errors import DipgoError, setting
from dipgo.ir.fitted import Fitted, MeasuredError, Scales, middle
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.text_encoding import HIDDEN_STATES
from dipgo.search.examples import Example, Examples
from dipgo.search.problem import Problem
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet.row_gates import row_gates
from dipgo.search.supernet.supernet import SuperNet

SCALES = (1.0, 3.0, 5.0, 7.5, 12.0)
"""The guidance scales to measure at, besides those that were fitted for."""

HELD_OUT = 500_000
"""The seed of held-out batches, less the search's: no other batch has their noise."""


class Measurement:
    """Measures SubNets of one problem on the same held-out batches.

    Args:
        problem: The model.
        net: The SuperNet; with `halves` if the SubNets read unconditional halves.
        prompts: The prompts; batches take them in an order of their own.
        scales: The range of guidance scales that was fitted for.
        settings: The search's settings; `held_out` is the number of batches.

    Raises:
        DipgoError: There is a negative prompt, and the unconditional half is of no text.
    """

    def __init__(
        self,
        problem: Problem,
        net: SuperNet,
        prompts: Sequence[str],
        *,
        scales: Scales,
        settings: SearchSettings,
    ) -> None:
        self.problem, self.net, self.scales = problem, net, scales
        self.count, self.negative_prompt = settings.held_out, settings.negative_prompt
        if self.negative_prompt is not None and not self._takes_negatives:
            raise DipgoError(
                setting("negative_prompt"),
                found="one for a model without guidance by texts",
                expected="none",
                remedy="leave it out",
            )
        self.examples = Examples(
            problem,
            net,
            prompts,
            count=max(self.count, 1),
            scales=scales,
            seed=HELD_OUT + settings.seed,
            negative_prompt=self.negative_prompt,
        )
        self._made: dict[tuple[int, float, bool], Example] = {}

    def fitted(self, subnet: SubNet) -> Fitted:
        """Returns what the SubNet was fitted for, and its errors."""
        problem = self.problem
        return Fitted(
            guidance=self.scales if problem.geometry.guidance else None,
            latents=tuple(problem.traced.graph.types[self.net.state].shape[1:]),
            negative_prompt=self.negative_prompt,
            loras=problem.source.loras,
            errors=tuple(self._errors(subnet)) if self.count else (),
            pictures=self.count * problem.geometry.batch,
        )

    def _errors(self, subnet: SubNet) -> Iterator[MeasuredError]:
        if not self.problem.geometry.guidance:
            yield MeasuredError(None, self._error(subnet, middle(self.scales)))
            return
        for scale in sorted({*SCALES, *self.scales, middle(self.scales)}):
            yield MeasuredError(scale, self._error(subnet, scale))
        if self._takes_negatives:
            error = self._error(subnet, middle(self.scales), negative=True)
            yield MeasuredError(middle(self.scales), error, negative_prompts=True)

    @property
    def _takes_negatives(self) -> bool:
        """Whether there is an unconditional half, of a text."""
        geometry = self.problem.geometry
        return geometry.guidance and HIDDEN_STATES in self.problem.source.at(geometry).conditioning

    def _error(self, subnet: SubNet, scale: float, negative: bool = False) -> float | None:
        """Returns the mean latent error over all batches, or None if it is not finite."""
        errors = [self._errors_of(subnet, index, scale, negative) for index in range(self.count)]
        mean = float(torch.cat(errors).mean())
        return float(f"{mean:.3g}") if math.isfinite(mean) else None

    @torch.no_grad()
    def _errors_of(self, subnet: SubNet, index: int, scale: float, negative: bool) -> Tensor:
        """Returns the latent errors f32[B] of a batch."""
        example = self._example(index, scale, negative)
        gates = torch.tensor(subnet.gates, dtype=torch.float32, device=self.net.device)
        return latent_errors(self.net(gates, example.inputs, row_gates(subnet)), example)

    def _example(self, index: int, scale: float, negative: bool) -> Example:
        """Returns a batch with its dense trajectory; a negative prompt is another picture's."""
        asked = (index, scale, negative)
        if asked not in self._made:
            negatives = self.examples.prompts_of(index + 1) if negative else ()
            inputs = self.examples.inputs(index, scale, negatives)
            self._made[asked] = self.examples.with_dense(inputs)
        return self._made[asked]


def latent_errors(latents: Tensor, example: Example) -> Tensor:
    """Returns the relative distance f32[B] of latents f32[B, …] from where dense ends."""
    difference, dense = (latents - example.dense).flatten(1), example.dense.flatten(1)
    return difference.square().sum(1).sqrt() / dense.square().sum(1).sqrt()
