"""The state of a trajectory between two evaluations: states, predictions and caches so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from torch import Tensor

from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.past import Past

Caches: TypeAlias = dict[str, tuple[Tensor, ...]]
"""The tensors that each block would reuse: its outputs, or its delta."""


@dataclass(slots=True)
class Walk:
    """A trajectory on its way. Tensors are never written to, so copies are cheap.

    Attributes:
        sampler: The sampler.
        given: The inputs but for the noise, and the values that depend on the prompt alone.
        noise: The initial noise.
        draws: The noise that is drawn on the way, by the draw's index.
        inputs: The denoiser's inputs, one an evaluation.
        outputs: The predictions, one an evaluation.
        caches: The tensors that each block would reuse.
        past: The predictions that were computed, the newest first, each followed by its
            unconditional half if the halves are weighted too.
    """

    sampler: Sampler
    given: dict[str, Tensor]
    noise: Tensor
    draws: Mapping[int, Tensor] = field(default_factory=dict)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    caches: Caches = field(default_factory=dict)
    past: Past[Tensor] = field(default_factory=Past)

    def copy(self) -> Walk:
        """Returns a walk that goes on from here without changing this one."""
        return replace(self, inputs=list(self.inputs), outputs=list(self.outputs))

    @property
    def index(self) -> int:
        """The index of the next evaluation."""
        return len(self.outputs)

    def next_input(self) -> Tensor:
        """Returns the denoiser's input at the next evaluation."""
        return self._sum(self.sampler.inputs[self.index])

    @property
    def latest(self) -> tuple[Tensor, ...]:
        """The predictions that were computed, in the order of `past`."""
        return self.past.latest

    def add(self, state: Tensor, output: Tensor) -> None:
        """Adds an evaluation: the denoiser's input and the prediction."""
        self.inputs.append(state)
        self.outputs.append(output)

    def result(self) -> Tensor:
        """Returns the final latents."""
        return self._sum(self.sampler.result)

    def _sum(self, terms: tuple[Term, ...]) -> Tensor:
        total = terms[0].coefficient * self._source(terms[0])
        for term in terms[1:]:
            total = total + term.coefficient * self._source(term)
        return total

    def _source(self, term: Term) -> Tensor:
        match term.kind:
            case "noise":
                return self.noise
            case "input":
                return self.inputs[term.index]
            case "output":
                return self.outputs[term.index]
            case "draw":
                return self.draws[term.index]
