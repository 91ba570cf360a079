"""Writes a SubNet of 50 distinct random rows for Stable Diffusion 1.5, gated layer by layer.

    python -m scripts.generate.random_subnet OUT

The hardest case for segments: every step has a pattern of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from scripts.harness import run_script, script_parser

BLOCKS = (
    *(f"down_blocks.{level}.resnets.{index}" for level in range(4) for index in range(2)),
    *(f"down_blocks.{level}.downsamplers.0" for level in range(3)),
    "mid_block",
    *(f"up_blocks.{level}.resnets.{index}" for level in range(4) for index in range(3)),
)
TIMESTEPS = tuple(float(t) for t in range(981, 0, -20))
SEED = 0


def random_subnet() -> SubNet:
    """Row 0 computes every block; each gate of the other rows is on with probability 1/2."""
    gates = np.random.default_rng(SEED).random((len(TIMESTEPS), len(BLOCKS))) < 0.5
    gates[0] = True
    assert len({row.tobytes() for row in gates}) == len(TIMESTEPS)
    return SubNet(
        num_inference_steps=len(TIMESTEPS),
        timesteps=TIMESTEPS,
        blocks=BLOCKS,
        gates=gates,
        backup=("output",) * len(BLOCKS),
        model=ModelRef("UNet2DConditionModel"),
        scheduler=SchedulerRef("DDIMScheduler"),
        provenance={"method": "random gates", "probability": 0.5, "seed": SEED},
    )


def main(arguments: list[str]) -> None:
    """Write the file named on the command line."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args(arguments).out
    out.parent.mkdir(parents=True, exist_ok=True)
    random_subnet().save(out)


if __name__ == "__main__":
    run_script(main)
