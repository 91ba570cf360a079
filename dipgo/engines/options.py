"""The arguments of `run` and `bench` that say on what an export is run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from dipgo.common.cli import Parser, whole_number
from dipgo.engines.targets import DEFAULT_TARGET, any_of, run_providers, run_targets
from dipgo.engines.tensorrt.build import BuildOptions
from dipgo.engines.tensorrt.build_cache import default_folder


def add_build_arguments(parser: Parser) -> None:
    """What `export` takes too."""
    add = parser.add_argument
    add(
        "--compute-capability",
        nargs="+",
        default=[],
        metavar="N.N",
        help="GPUs to build for without one (tensorrt-rtx)",
    )
    add("--build-cache", type=Path, metavar="DIR", help="where built engines are kept")
    add("--no-build-cache", action="store_true", help="build every engine anew")
    add("--refittable", action="store_true", help="engines that `refit` can give other weights")
    add("--jobs", type=whole_number(0), default=0, help="builds at a time, 0 as memory allows (0)")


def build_options(options: Namespace) -> BuildOptions:
    """What was asked for; engines are kept in the user's cache unless told otherwise."""
    cache = None if options.no_build_cache else options.build_cache or default_folder()
    return BuildOptions(tuple(options.compute_capability), options.jobs, cache, options.refittable)


def add_target_arguments(parser: Parser) -> None:
    """Size, target, provider and threads."""
    add = parser.add_argument
    add("--size", default="", metavar="HxW", help="one of the export's further sizes")
    names = ", ".join(run_targets())
    add("--target", default=DEFAULT_TARGET, help=f"{names} ({DEFAULT_TARGET})")
    add("--provider", help=f"{any_of(run_providers())} (the target's own)")
    add("--threads", type=whole_number(0), default=0, help="0 takes every core (0)")


def target_options(options: Namespace) -> dict[str, Any]:
    """What `load` takes of them."""
    return {name: getattr(options, name) for name in ("size", "target", "provider", "threads")}
