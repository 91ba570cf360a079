"""Reports in one line that the buffers of a plan do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dipgo.common.errors import DipgoError
from dipgo.common.machine import physical_memory
from dipgo.engines.launches import LaunchList

GIB = 1 << 30


@contextmanager
def room_for(launches: LaunchList) -> Iterator[None]:
    """Checks that the machine has room for the buffers before they are made.

    A manifest says how many bytes they are, and it may be a stranger's.

    Raises:
        DipgoError: They are larger than the machine's memory, or cannot be had.
    """
    memory = physical_memory()
    if memory is not None and launches.nbytes > memory:
        raise _too_large(launches, f"{memory / GIB:.1f} GiB in this machine")
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError) as error:  # PyTorch's is the last
        raise _too_large(launches, "less free memory") from error


def _too_large(launches: LaunchList, memory: str) -> DipgoError:
    return DipgoError(
        "memory",
        found=f"a plan whose buffers take {launches.nbytes / GIB:.1f} GiB, and {memory}",
        expected="room for all of them",
        remedy="run it on a larger machine, or export for a smaller batch or size",
    )
