"""Writes the SubNet that the DiP-GO paper publishes for Stable Diffusion 1.5 as a SubNet file.

python -m scripts.generate.published_subnet examples/subnets/sd15-dipgo-0.80.json
"""

from pathlib import Path

import numpy as np

from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from scripts.harness import run_script, script_parser

BLOCKS = (
    *(f"down_blocks.{i}" for i in range(4)),
    "mid_block",
    *(f"up_blocks.{i}" for i in range(4)),
)
TIMESTEPS = tuple(float(t) for t in range(981, 0, -20))
COMPUTED_ROWS = (0, 7, 13, 19, 20, 21, 26, 32, 39, 48)
REUSED_AFTER_ALL = (7, BLOCKS.index("down_blocks.3"))


def published_subnet() -> SubNet:
    """Stable Diffusion 1.5 under DDIM-50 at ratio 0.80 (arXiv 2410.16942)."""
    gates = np.zeros((len(TIMESTEPS), len(BLOCKS)), dtype=np.bool_)
    gates[COMPUTED_ROWS, :] = True
    gates[REUSED_AFTER_ALL] = False
    return SubNet(
        num_inference_steps=len(TIMESTEPS),
        timesteps=TIMESTEPS,
        blocks=BLOCKS,
        gates=gates,
        backup=("output",) * len(BLOCKS),
        model=ModelRef("UNet2DConditionModel"),
        scheduler=SchedulerRef("DDIMScheduler"),
        provenance={
            "method": "DiP-GO",
            "paper": "arXiv 2410.16942",
            "repository": "https://github.com/haoweiz23/dip-go",
            "ratio": 0.8,
        },
    )


def main(arguments: list[str]) -> None:
    """Write the file named on the command line."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args(arguments).out
    out.parent.mkdir(parents=True, exist_ok=True)
    published_subnet().save(out)


if __name__ == "__main__":
    run_script(main)
