"""The arguments of `run` and `bench` that say on what an export is run."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from dipgo.cli import Parser, whole_number
from dipgo.engines.backend import TARGETS


def add_target_arguments(parser: Parser) -> None:
    """Size, target, provider and threads."""
    add = parser.add_argument
    add("--size", default="", metavar="HxW", help="one of the export's further sizes")
    add("--target", default=TARGETS[0], help=f"{', '.join(TARGETS)} ({TARGETS[0]})")
    add("--provider", help="cpu, cuda, cuda-graph, openvino or openvino-bf16 (the target's own)")
    add("--threads", type=whole_number(0), default=0, help="0 takes every core (0)")


def target_options(options: Namespace) -> dict[str, Any]:
    """What `load` takes of them."""
    return {name: getattr(options, name) for name in ("size", "target", "provider", "threads")}
