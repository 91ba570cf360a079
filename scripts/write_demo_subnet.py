"""Writes the demo's SubNet: DeepCache's kind of schedule, by hand, for DDIM with 50 steps.

Everything at every fifth step; in between only the outermost blocks, which carry the detail.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet

PATH = Path(__file__).parent.parent / "examples" / "subnets" / "demo-deepcache-5.json"
STEPS, INTERVAL = 50, 5
BLOCKS = (
    *(f"down_blocks.{index}" for index in range(4)),
    "mid_block",
    *(f"up_blocks.{index}" for index in range(4)),
)
ALWAYS = ("up_blocks.3",)


def main() -> None:
    """The timesteps are those of SD-1.5's scheduler configuration: 981, 961, … 1."""
    gates = np.zeros((STEPS, len(BLOCKS)), dtype=bool)
    gates[::INTERVAL] = True
    gates[:, [BLOCKS.index(name) for name in ALWAYS]] = True
    SubNet(
        num_inference_steps=STEPS,
        timesteps=tuple(float(981 - 20 * index) for index in range(STEPS)),
        blocks=BLOCKS,
        gates=gates,
        backup=("output",) * len(BLOCKS),
        model=ModelRef("UNet2DConditionModel"),
        scheduler=SchedulerRef("DDIMScheduler"),
        provenance={"method": "written by hand, of DeepCache's kind", "interval": INTERVAL},
    ).save(PATH)


if __name__ == "__main__":
    main()
