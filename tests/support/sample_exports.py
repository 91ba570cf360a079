"""Small exports of every kind that the file format knows: dense, pruned, batched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from dipgo.compiler.sampler.probe import probe
from dipgo.export import export
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.schedules.faster_diffusion import PRIOR_NOISE
from tests.support.zoo import ZOO, case, traced_case

NAMES = ("dense", "pruned", "batched")


def write_sample_exports(pipeline: Path, folder: Path) -> None:
    """By their names. `dense` is of a whole pipeline, the others are of denoisers alone."""
    export(pipeline, "dense", folder / "dense", steps=4, batch=2, scheduler="euler-a")
    _write_pruned(folder / "pruned")
    _write_batched(folder / "batched")


def _write_pruned(out: Path) -> None:
    """A DiT, whose conditioning is of whole numbers, with all three backups, without guidance.

    Its sampler draws noise.
    """
    scheduler = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    blocks = [f"transformer_blocks.{index}" for index in range(4)]
    backup = ("output", "delta", "identity", "output")
    gates = ("1111", "1001", "0110", "0000", "1110")
    subnet = SubNet(5, probe(scheduler, 5).timesteps, tuple(blocks), _table(gates), backup)
    denoiser = case("dit", "block", guidance=False).denoiser
    source = Source("dit", denoiser, ZOO["dit"].family, scheduler, 8, tokens=7)
    export(source, subnet, out, guidance=False)


def _write_batched(out: Path) -> None:
    """Decoders in lanes as in Faster Diffusion, in two segments, so that values are stacked too."""
    scheduler = DDIMScheduler(clip_sample=False)
    blocks = ("conv_in", "down_blocks.*", "mid_block", "up_blocks.*")
    chosen = traced_case("three_levels", blocks)
    names = tuple(block.name for block in chosen.traced.graph.blocks)
    gates = ("11111111", "11111111", "00000111", "00000001", "11111111", "00000111")
    subnet = SubNet(
        len(gates),
        probe(scheduler, len(gates)).timesteps,
        names,
        _table(gates),
        ("output",) * len(names),
        prior_noise=PRIOR_NOISE,
    )
    source = Source("unet", chosen.denoiser, ZOO["three_levels"].family, scheduler, 8, tokens=7)
    export(source, subnet, out)


def _table(rows: Sequence[str]) -> np.ndarray:
    return np.array([[gate == "1" for gate in row] for row in rows])
