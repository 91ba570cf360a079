"""`python -m dipgo.export --subnet subnet.json --model M --out OUT`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from dipgo.common.cli import Parser, run_command
from dipgo.common.options import add_options, read_settings, refuse_without_needs
from dipgo.common.packages import command_packages
from dipgo.common.progress import stage
from dipgo.engines.options import add_build_arguments, build_options
from dipgo.export.settings import OUTPUT, ExportSettings
from dipgo.models.options import add_model

EXAMPLES = (
    "python -m dipgo.export --model M --subnet subnet.json --out OUT",
    "python -m dipgo.export --model arch:sd15 --subnet dense --steps 50 --out OUT",
    "python -m dipgo.export --model M --subnet subnet.json --out OUT --target tensorrt",
)


def main(arguments: list[str]) -> None:
    """Parses the arguments and exports."""
    _parser().run(_export, arguments)


def _export(options: Namespace) -> None:
    settings = read_settings(options, ExportSettings, build=build_options(options))
    refuse_without_needs(options, settings)
    with command_packages("dipgo.export", "exporting", "export"):
        from dipgo.export.api import write_export
    out = write_export(options.model, settings, options.out, stage)
    print(f"wrote {out}")


def _parser() -> Parser:
    parser = Parser("dipgo.export", description="Writes an export directory.", examples=EXAMPLES)
    add_model(parser)
    parser.group("model").add_argument(
        "--subnet", required=True, metavar="FILE", help="a SubNet file, or the word dense"
    )
    parser.group(OUTPUT).add_argument(
        "--out", required=True, type=Path, metavar="OUT", help="directory to write"
    )
    add_options(parser, ExportSettings)
    add_build_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
