"""Damages SubNets in every way that a stranger's SubNet may be damaged."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dipgo.ir.fitted import Fitted, LoraRecord, MeasuredError
from dipgo.ir.subnet.subnet import GapFilters, ModelRef, PriorNoise, SchedulerRef, SubNet
from scripts.fuzz.damaged_exports import put_no_file
from scripts.fuzz.mutants import damage_bytes, damage_json

STEPS = 4
BLOCKS = ("down_blocks.0", "mid_block", "up_blocks.0", "up_blocks.3")


def write_subnets(folder: Path) -> None:
    """Writes SubNets for the tiny pipeline with ddim: with all that a SubNet's file may hold."""
    folder.mkdir()
    timesteps = [float(751 - 250 * row) for row in range(STEPS)]
    gates = np.ones((STEPS, len(BLOCKS)), bool)
    gates[1, 1:] = gates[2, 0] = gates[3, 2] = False
    plain = SubNet(
        STEPS,
        tuple(timesteps),
        BLOCKS,
        gates,
        ("output", "delta", "output", "output"),
        model=ModelRef("UNet2DConditionModel"),
        scheduler=SchedulerRef("DDIMScheduler", {"clip_sample": False}),
        scores=np.linspace(0, 1, gates.size).reshape(gates.shape),
        provenance={"method": "gradient", "ratio": 0.5},
        prior_noise=PriorNoise(0.003, 500.0),
    )
    off = gates.copy()
    off[[1, 3]] = False
    fitted = Fitted(
        (5.0, 7.5),
        (4, 16, 16),
        "blue",
        0.5,
        (LoraRecord("style", "0" * 64, 0.5),),
        (MeasuredError(7.5, 0.01), MeasuredError(9.0, None, negative_prompts=True)),
        8,
    )
    halves = ((), (0.5,), (), (0.25, -0.25))
    weights = ((), (1.25,), (), (1.5, -0.5))
    bare = replace(plain, gates=off, backup=("output",) * len(BLOCKS), fitted=fitted)
    filters = np.random.default_rng(0).normal(0, 0.1, (2, 1, 4, 4, 3, 3))
    for name, subnet in {
        "plain": plain,
        "weights": replace(bare, reuse=weights, reuse_unconditional=halves),
        "filters": replace(bare, reuse_filters=(GapFilters((1,), *filters),)),
    }.items():
        subnet.save(folder / f"{name}.json")


def damage_subnet(base: Path, out: Path, seed: int) -> str:
    """Writes a damaged SubNet, `subnet.json`, into a folder.

    Args:
        base: The folder with the SubNets.
        out: The folder to write.
        seed: Decides what is damaged, and how.

    Returns:
        What was done, in words.
    """
    draw = random.Random(seed)
    out.mkdir()
    path = draw.choice(sorted(base.glob("*.json")))
    written = out / "subnet.json"
    kind = draw.choices(("json", "bytes", "replaced"), (80, 12, 8))[0]
    if kind == "replaced":
        return f"{path.name} replaced: {_replace(written, draw)}"
    content = path.read_bytes()
    if kind == "bytes":
        *_, mutant = damage_bytes(content, draw.randint(1, 9), draw.getrandbits(32))
    else:
        document: Any = json.loads(content)
        *_, mutant = damage_json(document, draw.randint(1, 9), draw.getrandbits(32))
    written.write_bytes(mutant.data)
    return f"{path.name}: {mutant.name}"


def _replace(path: Path, draw: random.Random) -> str:
    kind = draw.choice(("fifo", "folder", "zero", "sparse", "loop", "pickle"))
    put_no_file(path, kind)
    if kind == "sparse":
        with path.open("wb") as file:
            file.truncate(draw.choice((1, 2**32, 2**40)))
    if kind == "pickle":
        path.write_bytes(b"\x80\x04cos\nsystem\n\x8c\x04true\x85R.")
    return kind
