"""The packages that exporting needs: imported late, told of when missing, and kept quiet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dipgo.errors import DipgoError


@contextmanager
def export_packages() -> Iterator[None]:
    """Surrounds the import of what needs torch and diffusers. Raises DipgoError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DipgoError(
            "dipgo.export",
            found=f"no package {error.name}",
            expected="the packages that exporting needs (running an export does without)",
            remedy="pip install dipgo[export]",
        ) from error
    silence_libraries()


def silence_libraries() -> None:
    """A command says what it does itself; the libraries' bars and hints would drown it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
