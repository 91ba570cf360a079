"""`python -m dipgo.export --subnet subnet.json --model M --out OUT`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dipgo.cli import Parser, run_command, stage
from dipgo.errors import DipgoError


def main(arguments: list[str]) -> None:
    """Parses the arguments and exports."""
    options = _parser().parse_args(arguments)
    export = _import_export()
    silence_libraries()
    out = export(
        options.model,
        options.subnet,
        options.out,
        steps=options.steps,
        scheduler=options.scheduler,
        blocks=tuple(options.blocks),
        batch=options.batch,
        height=options.height,
        width=options.width,
        guidance=not options.no_guidance,
        target=options.target,
        precision=options.precision,
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
    add("--steps", type=int, metavar="N", help="with --subnet dense: how many steps to unroll")
    add("--scheduler", metavar="NAME", help="ddim, pndm, dpm++, euler, unipc, … (the pipeline's)")
    add("--blocks", nargs="+", default=[], metavar="PATTERN", help="with --subnet dense")
    add("--batch", type=int, default=1, metavar="N", help="pictures a run (1)")
    add("--height", type=int, default=0, metavar="PX", help="pixels (the model's own)")
    add("--width", type=int, default=0, metavar="PX", help="pixels (the model's own)")
    add("--no-guidance", action="store_true", help="without classifier-free guidance")
    add("--target", default="onnxruntime", help="onnxruntime")
    add("--precision", default="fp32", help="fp32")
    add("--force", action="store_true", help="replace OUT if it is an export")
    return parser


def _import_export() -> Callable[..., Path]:
    try:
        from dipgo.export.api import export
    except ModuleNotFoundError as error:
        raise DipgoError(
            "dipgo.export",
            found=f"no package {error.name}",
            expected="the packages that exporting needs (running an export does without)",
            remedy="pip install dipgo[export]",
        ) from error
    return export


def silence_libraries() -> None:
    """A command says what it does itself; the libraries' bars and hints would drown it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(run_command(main))
