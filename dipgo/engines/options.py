"""Defines the arguments that choose on what an export is run or built."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from typing import Any

from dipgo.common.cli import Parser, refuse_idle, whole_number
from dipgo.common.errors import setting
from dipgo.common.options import add_options, read_settings
from dipgo.engines.targets import (
    DEFAULT_TARGET,
    TARGETS,
    any_of,
    build_targets,
    run_providers,
    run_targets,
)
from dipgo.engines.tensorrt.build import DEFAULT_BUILD, ENGINES, BuildOptions
from dipgo.engines.tensorrt.build_cache import default_folder


def add_build_arguments(parser: Parser) -> None:
    """Adds the arguments of `build`, which `export` takes too."""
    add_options(parser, BuildOptions)
    add = parser.group(ENGINES).add_argument
    add("--no-build-cache", action="store_true", help="build every engine again")


def build_options(options: Namespace) -> BuildOptions:
    """Returns the build options; built engines are kept in the user's cache unless said otherwise.

    Raises:
        DipgoError: An option is wrong, or has no effect on the target.
    """
    row = TARGETS.get(options.target or DEFAULT_TARGET)
    if row and not row.builder:
        names = (*(item.name for item in fields(BuildOptions)), "no_build_cache")
        remedy = f"take {setting('target')} {any_of(build_targets())}, or leave it out"
        refuse_idle(options, names, f"on {row.title}, for which no engines are built", remedy)
        return DEFAULT_BUILD
    cache = None if options.no_build_cache else options.cache or default_folder()
    return read_settings(options, BuildOptions, cache=cache)


def add_target_arguments(parser: Parser) -> None:
    """Adds the arguments for size, target, provider and threads."""
    add = parser.group(ENGINES).add_argument
    add("--size", default="", metavar="HxW", help="one of the export's further sizes")
    names = ", ".join(run_targets())
    add("--target", default=DEFAULT_TARGET, help=f"{names} ({DEFAULT_TARGET})")
    add("--provider", help=f"{any_of(run_providers())} (the target's own)")
    add("--threads", type=whole_number(0), default=0, help="0 takes every core (0)")


def target_options(options: Namespace) -> dict[str, Any]:
    """Returns the target's arguments as keyword arguments of `load`."""
    return {name: getattr(options, name) for name in ("size", "target", "provider", "threads")}
