"""Writes Faster Diffusion's schedule for SD-1.5 and 50 steps of DDIM as a SubNet.

python -m scripts.generate.faster_diffusion_subnet [OUT]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef
from dipgo.schedules.faster_diffusion import faster_diffusion
from scripts.harness import SUBNETS, run_script, script_parser

PATH = SUBNETS / "sd15-faster-diffusion.json"
STEPS = 50
BLOCKS = (
    "conv_in",
    *(f"down_blocks.{index}" for index in range(4)),
    "mid_block",
    *(f"up_blocks.{index}" for index in range(4)),
)


def main(arguments: list[str]) -> None:
    """The timesteps are those of SD-1.5's scheduler configuration: 981, 961, … 1."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("out", type=Path, nargs="?", default=PATH)
    subnet = faster_diffusion(
        BLOCKS, [981.0 - 20 * index for index in range(STEPS)], num_inference_steps=STEPS
    )
    replace(
        subnet,
        model=ModelRef("UNet2DConditionModel"),
        scheduler=SchedulerRef("DDIMScheduler"),
        provenance={**subnet.provenance, "paper": "arXiv 2312.09608"},
    ).save(parser.parse_args(arguments).out)


if __name__ == "__main__":
    run_script(main)
