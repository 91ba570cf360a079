"""Runs `dipgo X` and `python -m dipgo X` as `python -m dipgo.X`."""

from __future__ import annotations

import importlib
import sys

from dipgo.common.cli import USER_ERROR, run_command
from dipgo.common.errors import DipgoError, close_to
from dipgo.common.version import __version__

COMMANDS = {
    "search": ("dipgo.search.__main__", "find a SubNet by gradient, or make that of a rival"),
    "export": ("dipgo.export.__main__", "write an export directory from a model and a SubNet"),
    "build": ("dipgo.build", "build the TensorRT engines of an export directory"),
    "refit": ("dipgo.refit", "give an export another model's weights, or a LoRA"),
    "run": ("dipgo.run.__main__", "make a picture, or latents, from an export directory"),
    "bench": ("dipgo.bench", "time an export, alone or against another"),
    "evaluate": ("dipgo.evaluate.__main__", "measure the quality of SubNets against dense"),
    "inspect": ("dipgo.inspect", "show a SubNet or the plan of an export directory"),
}


USAGE = "usage: dipgo COMMAND …; dipgo COMMAND --help says more; dipgo --version"


def main() -> int:
    """Hands the remaining arguments to the command."""
    if sys.argv[1:] == ["--version"]:
        return run_command(lambda arguments: print(f"dipgo {__version__}"))
    if sys.argv[1:2] in (["-h"], ["--help"]):
        return run_command(lambda arguments: print(_usage()))
    if not sys.argv[1:]:
        print(_usage(), file=sys.stderr)
        return USER_ERROR
    if sys.argv[1] not in COMMANDS:
        return run_command(_refuse, sys.argv[1:])
    module = importlib.import_module(COMMANDS[sys.argv[1]][0])
    return run_command(module.main, sys.argv[2:])


def _refuse(arguments: list[str]) -> None:
    raise DipgoError(
        f"dipgo {arguments[0]}",
        found="a command that is not there",
        expected=f"one of {', '.join(COMMANDS)}",
        remedy=close_to(arguments[0], COMMANDS, "see dipgo --help"),
    )


def _usage() -> str:
    lines = [f"  {name:8} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join([USAGE, *lines])


if __name__ == "__main__":
    sys.exit(main())
