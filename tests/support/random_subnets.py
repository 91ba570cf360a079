"""Random samplers and gate tables for a traced denoiser, of which the first row is all ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from dipgo.compiler.sampler.probe import probe
from dipgo.ir.graph import BlockGraph
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.backups import BACKUPS
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet

SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddim": lambda: DDIMScheduler(clip_sample=False, steps_offset=1),
    "sample": lambda: DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "plms": lambda: PNDMScheduler(skip_prk_steps=True, steps_offset=1),
    "dpm++": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler-a": EulerAncestralDiscreteScheduler,
    "flow": FlowMatchEulerDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "unipc": UniPCMultistepScheduler,
}


def random_sampler(draw: random.Random) -> Sampler:
    """A scheduler of diffusers over 3 to 7 steps, or any linear recurrence."""
    if draw.random() < 0.5:
        return _recurrence(draw, draw.randint(3, 7))
    return _probed(draw.choice(sorted(SCHEDULERS)), draw.randint(3, 7))


@cache
def _probed(name: str, steps: int) -> Sampler:
    return probe(SCHEDULERS[name](), steps)


def _recurrence(draw: random.Random, evaluations: int) -> Sampler:
    """Timesteps may come again, at once or later; steps may copy what was, and so waste work."""
    rows = [0]
    for _ in range(evaluations - 1):
        rows.append(draw.choice([max(rows) + 1, max(rows) + 1, rows[-1], draw.choice(rows)]))
    count = max(rows) + 1
    later = [_terms(draw, index) for index in range(1, evaluations)]
    return Sampler(
        scheduler_class="Recurrence",
        num_inference_steps=count,
        timesteps=tuple(float(900 - 100 * index) for index in range(count)),
        rows=tuple(rows),
        inputs=((Term(1.0, "noise"),), *later),
        result=_terms(draw, evaluations),
    )


def _terms(draw: random.Random, index: int) -> tuple[Term, ...]:
    """Of the input of evaluation `index`, or of the result after so many evaluations."""
    if draw.random() < 0.25:
        kind = draw.choice(["input", "output", "input", "output", "draw"])
        return (Term(1.0, kind, draw.choice([0, index // 2, -1]) % index + (kind == "draw")),)
    terms = [Term(0.9, "input", index - 1), Term(0.3, "output", index - 1)]
    if draw.random() < 0.5:
        terms.append(Term(0.2, "output", draw.randrange(index)))
    if draw.random() < 0.3:
        terms.append(Term(0.1, "input", draw.randrange(index)))
    if draw.random() < 0.2:
        terms.append(Term(0.05, "noise"))
    if draw.random() < 0.2:
        terms.append(Term(0.4, "draw", draw.randint(1, index)))
    return tuple(terms)


def random_subnet(draw: random.Random, graph: BlockGraph, sampler: Sampler) -> SubNet:
    """Random gates, and for each block a backup that it can have."""
    words = [
        draw.choice(["output", *BACKUPS] if graph.carriers[block.name] else ["output"])
        for block in graph.blocks
    ]
    return SubNet(
        num_inference_steps=sampler.num_inference_steps,
        timesteps=sampler.timesteps,
        blocks=tuple(block.name for block in graph.blocks),
        gates=_gates(draw, len(sampler.timesteps), len(words)),
        backup=tuple(words),
    )


def _gates(draw: random.Random, rows: int, blocks: int) -> np.ndarray:
    """Independent gates; or whole rows; or, between key rows, only the blocks from some on."""
    share = draw.choice([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
    kind = draw.choice(["independent", "rows", "tail"])
    gates = np.ones((rows, blocks), dtype=bool)
    first = draw.randrange(blocks)
    for row in range(1, rows):
        key = draw.random() < share
        match kind:
            case "independent":
                gates[row] = [draw.random() < share for _ in range(blocks)]
            case "rows":
                gates[row] = key
            case _:
                gates[row] = key or np.arange(blocks) >= first
    return gates


TERMS = 3


def weigh_rows(draw: random.Random, subnet: SubNet, halves: bool) -> SubNet:
    """Weighs up to three predictions in rows that are wholly off, and of some the halves."""
    computed = np.cumsum(subnet.gates.any(axis=1))
    reuse = tuple(
        () if row.any() else _weights(draw, draw.randint(1, min(TERMS, int(computed[index]))))
        for index, row in enumerate(subnet.gates)
    )
    found = replace(subnet, reuse=reuse)
    if not halves:
        return found
    of_halves = tuple(_weights(draw, len(row) - draw.randint(0, bool(row))) for row in reuse)
    return replace(found, reuse_unconditional=of_halves)


def filter_rows(
    draw: random.Random, subnet: SubNet, halves: bool, channels: int, *, every: bool = False
) -> SubNet:
    """Filters of up to three predictions for most runs of rows that are wholly off, or for all."""
    generator = np.random.default_rng(draw.getrandbits(32))
    on, found = subnet.gates.any(axis=1), []
    for first in range(1, len(on)):
        if on[first] or not on[first - 1] or (draw.random() < 0.2 and not every):
            continue
        end = next((row for row in range(first, len(on)) if on[row]), len(on))
        terms = draw.randint(1, min(TERMS, int(on[:first].sum())))
        shape = (2, terms, channels, channels, 3, 3)
        # What is filtered stays as large as what it is made of: else errors grow row by row.
        values = generator.normal(0, (18 * terms * channels) ** -0.5, shape).astype(np.float32)
        found.append(GapFilters(tuple(range(first, end)), values[0], values[1] if halves else None))
    return replace(subnet, reuse_filters=tuple(found) or None)


def _weights(draw: random.Random, count: int) -> tuple[float, ...]:
    return tuple(draw.uniform(-1, 1) for _ in range(count))


def subnet_of_random_rows(blocks: tuple[str, ...], steps: int, share: float) -> SubNet:
    """Rows of random gates, all different."""
    generator = np.random.default_rng(0)
    timesteps = probe(DDIMScheduler(clip_sample=False), steps).timesteps
    rows: dict[bytes, np.ndarray] = {}
    first = np.ones(len(blocks), bool)
    rows[first.tobytes()] = first
    while len(rows) < steps:
        row = generator.random(len(blocks)) < share
        rows.setdefault(row.tobytes(), row)
    gates = np.stack(list(rows.values()))
    return SubNet(steps, timesteps, blocks, gates, ("output",) * len(blocks))


FILTER_STEPS = 6


def subnet_with_filters(graph: BlockGraph, seed: int, halves: bool, channels: int = 4) -> SubNet:
    """Two gaps, of which the first has one prediction to filter; DDIM."""
    sampler = probe(DDIMScheduler(clip_sample=False), FILTER_STEPS)
    blocks = tuple(block.name for block in graph.blocks)
    gates = np.ones((FILTER_STEPS, len(blocks)), dtype=np.bool_)
    gates[[1, 2, 4, 5]] = False
    gates[3, : len(blocks) // 2] = False
    plain = SubNet(FILTER_STEPS, sampler.timesteps, blocks, gates, ("output",) * len(blocks))
    numbers = np.random.default_rng(seed).normal(0, 0.15, (2, 2, channels, channels, 3, 3))
    values = numbers.astype(np.float32)
    values[0, 0, range(channels), range(channels), 1, 1] += 1.0
    return replace(
        plain,
        reuse_filters=(
            GapFilters((1, 2), values[0, :1], values[1, :1] if halves else None),
            GapFilters((4, 5), values[0], values[1] if halves else None),
        ),
    )
