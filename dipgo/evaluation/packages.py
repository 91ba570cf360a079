"""The packages that an evaluation needs beyond those of exporting: told of when missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dipgo.errors import DipgoError


@contextmanager
def evaluation_packages() -> Iterator[None]:
    """Surrounds the import of `dipgo.evaluation.api`. Raises DipgoError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DipgoError(
            "dipgo.evaluate",
            found=f"no package {error.name}",
            expected="the packages that an evaluation needs",
            remedy="pip install dipgo[cpu,export,search]",
        ) from error
