"""A search of toy size: the tiny pipeline over a few steps of DDIM, one prompt a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.api import SearchRequest, pose
from dipgo.search.examples import Examples
from dipgo.search.problem import Problem
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet.row_gates import row_gates
from dipgo.search.supernet.supernet import SuperNet

PROMPTS = ("a red circle", "a blue square", "two green lines")
STEPS = 6
SMALL = SearchSettings(
    iterations=3,
    pool=2,
    exchanges=6,
    exchange_examples=1,
    reuse_iterations=4,
    reuse_terms=3,
    reuse_filter=0,
    held_out=0,
)


def tiny_request(ratio: float = 0.6, scheduler: str = "ddim", steps: int = STEPS) -> SearchRequest:
    """One picture a batch."""
    return SearchRequest(ratio, steps, scheduler, batch=1)


def tiny_problem(pipeline: Path, scheduler: str = "ddim", steps: int = STEPS) -> Problem:
    """The traced pipeline with its sampler and its cost."""
    return pose(pipeline, tiny_request(scheduler=scheduler, steps=steps))


def tiny_net(problem: Problem, *, checkpointing: bool = False, halves: bool = False) -> SuperNet:
    """Of all of the problem's blocks."""
    return SuperNet(
        problem.traced,
        problem.sampler,
        problem.blocks,
        problem.backup,
        checkpointing=checkpointing,
        halves=halves,
    )


def tiny_examples(problem: Problem, net: SuperNet, count: int = 2) -> Examples:
    """Batches of one prompt."""
    return Examples(problem, net, PROMPTS, count=count, scales=(7.5, 7.5))


@torch.no_grad()
def run_hard(net: SuperNet, subnet: SubNet, inputs: dict[str, Tensor]) -> Tensor:
    """Where the SuperNet ends with a SubNet's gates and reuse weights."""
    gates = torch.tensor(subnet.gates, dtype=torch.float32)
    return net(gates, inputs, row_gates(subnet))


def rows_on(problem: Problem, *rows: int) -> np.ndarray:
    """bool[steps, blocks]: these rows wholly on, the others wholly off."""
    gates = np.zeros(problem.cost.shape, dtype=np.bool_)
    gates[list(rows)] = True
    return gates


def small(**changes: object) -> SearchSettings:
    """`SMALL` with other values."""
    return replace(SMALL, **changes)  # type: ignore[arg-type]
