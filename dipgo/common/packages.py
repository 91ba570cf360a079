"""Reports a missing optional package in one line, and keeps libraries quiet in commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dipgo.common.errors import DipgoError


@contextmanager
def command_packages(command: str, purpose: str, extras: str) -> Iterator[None]:
    """Surrounds a command's imports from `dipgo[extras]`, then silences those libraries.

    Args:
        command: The command's name, the place that an error names.
        purpose: What the packages are needed for, in words.
        extras: The extras of dipgo that install the packages.

    Raises:
        DipgoError: A package is missing; the error names it and what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_package(command, error, purpose, extras) from error
    silence_libraries()


def missing_package(
    where: str, error: ModuleNotFoundError, purpose: str, extras: str
) -> DipgoError:
    """Returns the error for a package of one of dipgo's extras that is not installed.

    Args:
        where: What needs it: a command, or a name of the package.
        error: The exception of the import.
        purpose: What the packages are needed for, in words.
        extras: The extras of dipgo that install the packages.
    """
    return DipgoError(
        where,
        found=f"no package {error.name}",
        expected=f"the packages that {purpose} needs",
        remedy=install(extras),
    )


def install(extras: str) -> str:
    """Returns the remedy that installs extras of dipgo, as the README does: it is on no index."""
    return f"pip install '.[{extras}]' in a checkout of dipgo"


def silence_libraries() -> None:
    """Turns off the libraries' progress bars and hints: a command shows its own progress."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
