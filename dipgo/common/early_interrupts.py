"""Ends a command quietly that is interrupted before it runs, while Python imports its modules.

The package imports this first. It does something in a process that was started as a command of
dipgo alone: `python -m dipgo.X`, or `dipgo`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

LINE = "interrupted"


def is_a_command(arguments: list[str], original: list[str]) -> bool:
    """Returns whether Python was started to run a command of dipgo.

    Args:
        arguments: `sys.argv`, which begins with `-m` while Python looks for the module to run.
        original: `sys.orig_argv`.
    """
    name = arguments[0] if arguments else ""
    if name != "-m":
        return os.path.splitext(os.path.basename(name))[0] == "dipgo"
    module = original[original.index("-m") + 1] if "-m" in original[:-1] else ""
    return module.split(".")[0] == "dipgo"


def _end(number: int, frame: object) -> None:
    """Ends the process as the signal does by default, so that shells see that; nothing is open."""
    os.write(2, f"{LINE}\n".encode())
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    and is_a_command(getattr(sys, "argv", []), getattr(sys, "orig_argv", []))
):
    signal.signal(signal.SIGINT, _end)
