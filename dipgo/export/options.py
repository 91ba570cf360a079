"""Arguments that say what to compile: shared by `export` and `inspect`."""

from __future__ import annotations

import re
from argparse import Namespace
from typing import Any

from dipgo.common.cli import Parser
from dipgo.compiler.passes import OPTIMISE
from dipgo.ir.manifest.records import SIZE_PATTERN
from dipgo.models.options import add_lora_argument


def size(text: str) -> tuple[int, ...]:
    """The type of an argument such as `512x768` or `4x512x768`: pictures, height, width."""
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError
    return tuple(map(int, text.split("x")))


size.__name__ = "a height and width in pixels such as 512x768, or with a batch 4x512x768"

DEFAULT_PASSES = ",".join(one.name for one in OPTIMISE)


def add_request_arguments(parser: Parser) -> None:
    """Steps, scheduler, blocks, sizes, guidance and passes."""
    add = parser.add_argument
    add("--steps", type=int, metavar="N", help="with dense: how many steps to unroll")
    add("--scheduler", metavar="NAME", help="ddim, pndm, dpm++, euler, unipc, … (the pipeline's)")
    add(
        "--eta",
        type=float,
        default=0.0,
        metavar="E",
        help="of ddim or tcd: noise drawn, 0 to 1 (0)",
    )
    add("--blocks", nargs="+", default=[], metavar="PATTERN", help="with dense: what is gated")
    add("--batch", type=int, default=1, metavar="N", help="pictures a run (1)")
    add("--height", type=int, default=0, metavar="PX", help="pixels (the model's own)")
    add("--width", type=int, default=0, metavar="PX", help="pixels (the model's own)")
    add("--no-guidance", action="store_true", help="without classifier-free guidance")
    add_lora_argument(parser)
    add("--strength", type=float, metavar="S", help="start from a picture: run this share of steps")
    add("--passes", metavar="A,B,C", help=f"passes to run, in order ({DEFAULT_PASSES})")


def request_options(options: Namespace) -> dict[str, Any]:
    """The fields of a `Request` that these arguments hold; `subnet` is not among them."""
    return {
        "steps": options.steps,
        "scheduler": options.scheduler,
        "eta": options.eta,
        "blocks": tuple(options.blocks),
        "batch": options.batch,
        "height": options.height,
        "width": options.width,
        "guidance": False if options.no_guidance else None,
        "loras": tuple(options.lora),
        "strength": options.strength,
    }


def pass_names(options: Namespace) -> tuple[str, ...]:
    """The names in `--passes`, else those of every pass."""
    if options.passes is None:
        return tuple(one.name for one in OPTIMISE)
    return tuple(name.strip() for name in options.passes.split(","))
