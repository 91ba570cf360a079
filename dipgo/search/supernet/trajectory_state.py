"""A trajectory on its way: states, predictions and caches so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from torch import Tensor

from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.past import Past

Caches: TypeAlias = dict[str, tuple[Tensor, ...]]
"""What each block would reuse: its outputs, or its delta."""


@dataclass(slots=True)
class Walk:
    """What the next evaluation starts from. Tensors are never written to, so copies are cheap.

    `given` are the inputs but for the noise, and what depends on the prompt alone. `draws` has the
    noise that is drawn on the way, by the draw's index. `inputs` and
    `outputs` are the denoiser's, one an evaluation; `past` the predictions that were computed,
    the newest first, each followed by its unconditional half where these are weighted too.
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
        """Another that goes on from here without changing this one."""
        return replace(self, inputs=list(self.inputs), outputs=list(self.outputs))

    @property
    def index(self) -> int:
        """The evaluation that comes next."""
        return len(self.outputs)

    def next_input(self) -> Tensor:
        """The denoiser's input at the next evaluation."""
        return self._sum(self.sampler.inputs[self.index])

    @property
    def latest(self) -> tuple[Tensor, ...]:
        """The predictions that were computed, as said above."""
        return self.past.latest

    def add(self, state: Tensor, output: Tensor) -> None:
        """Goes one evaluation further."""
        self.inputs.append(state)
        self.outputs.append(output)

    def result(self) -> Tensor:
        """The final latents."""
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
