"""The packages that a search needs beyond those of exporting: told of when missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dipgo.errors import DipgoError


@contextmanager
def search_packages() -> Iterator[None]:
    """Surrounds the import of accelerate and `dipgo.search.api`. Raises DipgoError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "torchmetrics"):
            raise
        raise DipgoError(
            "dipgo.search",
            found=f"no package {error.name}",
            expected="the packages that a search needs",
            remedy="pip install dipgo[export,search]",
        ) from error
