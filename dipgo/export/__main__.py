"""`python -m dipgo.export --subnet subnet.json --model M --out OUT`."""

from __future__ import annotations

import sys

from dipgo.common.cli import Parser, run_command
from dipgo.common.packages import command_packages
from dipgo.common.progress import stage
from dipgo.engines.options import add_build_arguments, build_options
from dipgo.engines.targets import DEFAULT_TARGET, TARGETS, any_of
from dipgo.export.options import add_request_arguments, pass_names, request_options, size


def main(arguments: list[str]) -> None:
    """Parses the arguments and exports."""
    options = _parser().parse_args(arguments)
    with command_packages("dipgo.export", "exporting", "export"):
        from dipgo.export.api import export
    out = export(
        options.model,
        options.subnet,
        options.out,
        **request_options(options),
        also_sizes=options.also_size,
        passes=pass_names(options),
        target=options.target,
        build=build_options(options),
        precision=options.precision,
        keep_fp32=options.keep_fp32,
        check_numerics=not options.no_numerics_check,
        force=options.force,
        progress=stage,
    )
    print(f"wrote {out}")


def _parser() -> Parser:
    parser = Parser("dipgo.export", description="Writes an export directory.")
    add = parser.add_argument
    add("--model", required=True, metavar="M", help="pipeline directory, Hub id, or arch:NAME")
    add("--subnet", required=True, metavar="FILE", help="a SubNet file, or the word dense")
    add("--out", required=True, metavar="OUT", help="directory to write")
    add_request_arguments(parser)
    add("--also-size", nargs="+", default=[], type=size, metavar="[Nx]HxW", help="further sizes")
    add("--target", default=DEFAULT_TARGET, help=f"{any_of(TARGETS)} ({DEFAULT_TARGET})")
    add("--precision", default="fp32", help="fp32, fp16 or bf16 (fp32)")
    add("--keep-fp32", nargs="+", default=[], metavar="PATTERN", help="modules that stay in fp32")
    add("--no-numerics-check", action="store_true", help="do not run fp16 against fp32")
    add_build_arguments(parser)
    add("--force", action="store_true", help="replace OUT if it is an export")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
