"""The sampler as data: a recurrence that is linear in the noise and the predictions. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Term:
    """`coefficient` times the initial noise, the denoiser's input i, or its output i."""

    coefficient: float
    kind: Literal["noise", "input", "output"]
    index: int = 0


@dataclass(frozen=True, slots=True)
class PriorNoise:
    """z_t += scale · z_T at every timestep t < `below`, z_T being the initial latents.

    Source: Faster Diffusion (arXiv 2312.09608), prior noise injection.
    """

    scale: float
    below: float


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler with its timesteps fixed. docs/design.md, stage 4.

    `timesteps` are distinct, in the order of first evaluation; `rows[i]` is the index in
    `timesteps` of evaluation i (PNDM evaluates 51 times for 50 timesteps). `inputs[i]` are the
    terms of the denoiser's input at evaluation i, `result` those of the final latents.
    """

    scheduler_class: str
    num_inference_steps: int
    timesteps: tuple[float, ...]
    rows: tuple[int, ...]
    inputs: tuple[tuple[Term, ...], ...]
    result: tuple[Term, ...]
