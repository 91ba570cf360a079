"""`python -m dipgo.build OUT --target tensorrt-rtx`: builds the engines of an export."""

from __future__ import annotations

import itertools
import sys
from argparse import Namespace
from pathlib import Path

from dipgo.common.cli import Parser, run_command
from dipgo.common.progress import progress_bar
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.options import add_build_arguments, build_options
from dipgo.engines.targets import any_of, build_targets, find_builder


def main(arguments: list[str]) -> None:
    """Parses the arguments, builds, and reports where the engines are."""
    _parser().run(_build, arguments)


def _build(options: Namespace) -> None:
    builder = find_builder(options.target)
    export = ExportDirectory.open(options.out, check_hashes=False)
    total = len(export.engine_files) + len(export.manifest.parts)
    done = itertools.count(1)
    with progress_bar(f"build {total} engines for {options.target}", total) as advance_to:
        folder = builder.build(
            options.out, build_options(options), lambda name: advance_to(next(done))
        )
    print(f"wrote {folder}")


def _parser() -> Parser:
    parser = Parser(
        "dipgo.build",
        description="Builds the engines of an export.",
        examples=(
            "python -m dipgo.build OUT --target tensorrt",
            "python -m dipgo.build OUT --target tensorrt-rtx --compute-capability 8.9 12.0",
        ),
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="export directory")
    parser.add_argument("--target", required=True, help=any_of(build_targets()))
    add_build_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
