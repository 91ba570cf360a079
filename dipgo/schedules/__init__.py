"""Schedules: other methods' choices of what to skip, as SubNets; RULES lists them.

Functions shadow the modules of the same names: `dipgo.schedules.fora` is the function.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dipgo.schedules.base import at_kept, at_kept_by_bisection
from dipgo.schedules.block_caching import block_caching
from dipgo.schedules.deepcache import deepcache, deepcache_nonuniform
from dipgo.schedules.faster_diffusion import faster_diffusion, faster_diffusion_with
from dipgo.schedules.fewer_steps import fewer_steps, fewer_steps_with, steps_of
from dipgo.schedules.fora import fora
from dipgo.schedules.greedy import greedy
from dipgo.schedules.knapsack import knapsack
from dipgo.schedules.learning_to_cache import learning_to_cache
from dipgo.schedules.random_gates import random_gates
from dipgo.schedules.rule import (
    BUDGET,
    COUNT,
    INTERVAL,
    REMOVED,
    SHARE,
    STEPS,
    Rule,
    thresholds,
)
from dipgo.schedules.smooth_cache import smooth_cache

__all__ = [
    "RULES",
    "Rule",
    "at_kept",
    "at_kept_by_bisection",
    "block_caching",
    "deepcache",
    "deepcache_nonuniform",
    "faster_diffusion",
    "faster_diffusion_with",
    "fewer_steps",
    "fewer_steps_with",
    "fora",
    "greedy",
    "knapsack",
    "learning_to_cache",
    "random_gates",
    "smooth_cache",
    "steps_of",
]

_ROWS = (
    Rule(
        "fewer-steps",
        fewer_steps_with,
        STEPS,
        ("dense", "timesteps_at"),
        title="fewer steps",
        gates="all on, at the sampler's own timesteps for that number",
    ),
    Rule(
        "steps-of",
        steps_of,
        COUNT,
        ("subnet", "macs"),
        title="steps of a SubNet",
        gates="full rows where the given SubNet computes most, empty rows elsewhere",
    ),
    Rule(
        "random",
        random_gates,
        SHARE,
        ("dense", "seed"),
        title="random gates",
        gates="row 0, and random others",
    ),
    Rule(
        "deepcache",
        deepcache,
        INTERVAL,
        ("dense",),
        title="DeepCache",
        gates="full rows at every N-th step, the layers outside the branch elsewhere",
        source="arXiv 2312.00858",
    ),
    Rule(
        "deepcache-nonuniform",
        deepcache_nonuniform,
        INTERVAL,
        ("dense",),
        title="DeepCache, non-uniform",
        gates="the same, with full rows closer to one another about a centre",
        source="arXiv 2312.00858",
    ),
    Rule(
        "faster-diffusion",
        faster_diffusion_with,
        COUNT,
        ("dense",),
        title="Faster Diffusion",
        gates=(
            "full rows at key steps, `up_blocks` alone elsewhere (`conv_in` must be a block); "
            "key steps scaled from the published ones"
        ),
        source="arXiv 2312.09608",
    ),
    Rule(
        "fora",
        fora,
        INTERVAL,
        ("dense",),
        title="FORA",
        gates="blocks that match the patterns at every N-th step, others always",
        source="arXiv 2407.01425",
    ),
    Rule(
        "smooth-cache",
        smooth_cache,
        thresholds(np.geomspace(1e-3, 3.0, 200)),
        ("dense", "changes"),
        title="SmoothCache",
        gates=(
            "all blocks of a type are reused for the largest lag whose mean change is at most "
            "α, the threshold"
        ),
        source="arXiv 2411.10510",
    ),
    Rule(
        "block-caching",
        block_caching,
        thresholds(np.geomspace(1e-3, 30.0, 300)),
        ("dense", "changes"),
        title="Block Caching",
        gates="a block is reused while its changes from step to step sum to at most a threshold",
        source="arXiv 2312.03209",
    ),
    Rule(
        "greedy",
        greedy,
        REMOVED,
        ("dense", "losses"),
        title="greedy",
        gates="those whose single removal costs least are off",
    ),
    Rule(
        "knapsack",
        knapsack,
        BUDGET,
        ("dense", "losses", "macs"),
        title="knapsack",
        gates="the set whose single removals cost least in sum is off, within a share of all MACs",
        source="arXiv 2404.11098",
    ),
    Rule(
        "l2c",
        learning_to_cache,
        thresholds(np.linspace(0.0, 1.0, 101)[1:-1]),  # published logits are finite
        ("path", "dense"),
        title="Learning-to-Cache",
        gates=(
            "at even steps, counted from the last, on where the published router exceeds "
            "the threshold θ"
        ),
        source="arXiv 2406.01733",
    ),
)

RULES: Mapping[str, Rule] = {rule.name: rule for rule in _ROWS}
"""Rules by their names in `python -m dipgo.search --method`. A new schedule is a file and a row."""
