"""The sampler as a recurrence, linear in the noise and the predictions; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Term:
    """A coefficient times the initial noise, the denoiser's input i, its output i, or draw i.

    Draws count from 1: draw 0 of a seed is the initial noise.
    """

    coefficient: float
    kind: Literal["noise", "input", "output", "draw"]
    index: int = 0


@dataclass(frozen=True, slots=True)
class PriorNoise:
    """The noise added again: z_t += scale · z_T at every timestep t < `below`.

    z_T are the initial latents.

    Source:
        Faster Diffusion (arXiv 2312.09608), prior noise injection.
    """

    scale: float
    below: float


@dataclass(frozen=True, slots=True)
class Start:
    """The first state: `image_scale` · a picture's latents + `noise_scale` · noise.

    Without a `strength` there is no picture, and its scale is 0.
    """

    image_scale: float = 0.0
    noise_scale: float = 1.0
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler with its timesteps fixed. docs/internals/design.md, stage 4.

    `timesteps` are distinct, in the order of first evaluation; `rows[i]` is the index in
    `timesteps` of evaluation i (PNDM evaluates 51 times for 50 timesteps). `inputs[i]` are the
    terms of the denoiser's input at evaluation i, `result` those of the final latents. `eta` is
    what a scheduler that takes one was run with, `start` what goes into evaluation 0, and `config`
    the scheduler's public configuration. `noise_draws` is how often it draws noise, used or not.
    """

    scheduler_class: str
    num_inference_steps: int
    timesteps: tuple[float, ...]
    rows: tuple[int, ...]
    inputs: tuple[tuple[Term, ...], ...]
    result: tuple[Term, ...]
    eta: float = 0.0
    start: Start = Start()
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)
    noise_draws: int = 0

    @property
    def draws(self) -> tuple[int, ...]:
        """The draws that are used, ascending: a scheduler may draw noise that it does not use."""
        terms = (term for update in (*self.inputs, self.result) for term in update)
        return tuple(sorted({term.index for term in terms if term.kind == "draw"}))


def draw_name(index: int) -> str:
    """Returns the name of draw `index` among the inputs of a trajectory."""
    return f"noise.{index}"
