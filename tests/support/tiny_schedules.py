"""Dense SubNets to make schedules of, and how tests print their gates."""

from __future__ import annotations

import numpy as np

from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.calibrate import Changes

DOWN, UP = ([f"{side}_blocks.{k}" for k in range(4)] for side in ("down", "up"))

SD15 = (*DOWN, "mid_block", *UP)


def dense_subnet(blocks: tuple[str, ...] = SD15, steps: int = 50) -> SubNet:
    return SubNet.dense(range(steps, 0, -1), blocks, num_inference_steps=steps)


def row_strings(subnet: SubNet) -> list[str]:
    return ["".join("01"[int(gate)] for gate in row) for row in subnet.gates]


def full_rows(subnet: SubNet) -> list[int]:
    return np.flatnonzero(subnet.gates.all(axis=1)).tolist()


def random_changes(dense: SubNet) -> Changes:
    relative = np.random.default_rng(1).random((3, *dense.gates.shape))
    return Changes(dense.blocks, relative)
