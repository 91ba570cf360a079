"""`python -m dipgo.refit OUT --model M --lora style.safetensors --out NEW`: other weights."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from dipgo.common.cli import Parser, run_command
from dipgo.common.options import add_options
from dipgo.common.packages import command_packages
from dipgo.common.progress import stage
from dipgo.engines.tensorrt.build import ENGINES
from dipgo.export.settings import OUTPUT, ExportSettings
from dipgo.models.options import add_model


def main(arguments: list[str]) -> None:
    """Parses the arguments and refits."""
    _parser().run(_refit, arguments)


def _refit(options: Namespace) -> None:
    with command_packages("dipgo.refit", "refitting", "export"):
        from dipgo.export.refitting.refitted_copy import refit
    out = refit(
        options.export,
        options.model,
        options.out,
        loras=tuple(options.loras or ()),
        check_numerics=options.check_numerics is not False,
        without_engines=options.without_engines,
        force=bool(options.force),
        progress=stage,
    )
    print(f"wrote {out}")


def _parser() -> Parser:
    parser = Parser(
        "dipgo.refit",
        description="Writes a copy of an export with the weights of another model, or with a "
        "LoRA, without lowering or building anything again.",
        examples=(
            "python -m dipgo.refit OUT --model OTHER --out NEW",
            "python -m dipgo.refit OUT --model M --lora style.safetensors:0.8 --out NEW",
        ),
    )
    add = parser.add_argument
    add("export", metavar="OUT", type=Path, help="export directory")
    add_model(parser)
    add_options(parser, ExportSettings, only=("loras", "check_numerics"))
    add = parser.group(ENGINES).add_argument
    add("--without-engines", action="store_true", help="leave out what was built for OUT")
    add = parser.group(OUTPUT).add_argument
    add("--out", required=True, metavar="NEW", help="directory to write; OUT itself with --force")
    add_options(parser, ExportSettings, only=("force",))
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
