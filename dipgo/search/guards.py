"""Stops a search at the first NaN or infinity, and reports a lack of memory in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dipgo.common.errors import DipgoError, setting


@contextmanager
def memory_errors(checkpointing: bool) -> Iterator[None]:
    """Turns a lack of memory into a one-line error that names the option which needs less.

    Raises:
        DipgoError: Memory did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        first = (str(error).splitlines() or ["out of memory"])[0]
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            words in first for words in ("can't allocate memory", "out of memory")
        ):
            raise
        raise DipgoError(
            "search",
            found=first,
            expected="memory for one batch over all steps",
            remedy=f"lower {setting('batch')}"
            if checkpointing
            else f"leave {setting('checkpointing=False')} out",
        ) from None


def check_finite(value: Tensor, iteration: int, what: str) -> None:
    """Checks that `value` is finite.

    Raises:
        DipgoError: It holds a NaN or an infinity; the error names the iteration and `what`.
    """
    if bool(torch.isfinite(value).all()):
        return
    raise DipgoError(
        f"search, iteration {iteration}",
        found=f"NaN or infinity in {what}",
        expected="finite numbers",
        remedy=f"lower {setting('learning_rate')} or leave mixed precision out, and run again: "
        "the last checkpoint is from before this iteration",
    )
