"""`python -m dipgo.refit OUT --model M --lora style.safetensors --out NEW`: other weights."""

from __future__ import annotations

import sys
from pathlib import Path

from dipgo.common.cli import Parser, run_command
from dipgo.common.packages import command_packages
from dipgo.common.progress import stage
from dipgo.models.options import add_lora_argument


def main(arguments: list[str]) -> None:
    """Parses the arguments and refits."""
    options = _parser().parse_args(arguments)
    with command_packages("dipgo.refit", "refitting", "export"):
        from dipgo.export.refitting.refit import refit
    out = refit(
        options.export,
        options.model,
        options.out,
        loras=tuple(options.lora),
        check_numerics=not options.no_numerics_check,
        without_engines=options.without_engines,
        force=options.force,
        progress=stage,
    )
    print(f"wrote {out}")


def _parser() -> Parser:
    parser = Parser(
        "dipgo.refit",
        description="Writes a copy of an export with the weights of another model, or with a "
        "LoRA, without lowering or building anything again.",
    )
    add = parser.add_argument
    add("export", metavar="OUT", type=Path, help="export directory")
    add("--model", required=True, metavar="M", help="pipeline directory, Hub id, or arch:NAME")
    add("--out", required=True, metavar="NEW", help="directory to write; OUT itself with --force")
    add_lora_argument(parser)
    add("--no-numerics-check", action="store_true", help="do not run fp16 against fp32")
    add("--without-engines", action="store_true", help="leave out what was built for OUT")
    add("--force", action="store_true", help="replace NEW if it is an export")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
