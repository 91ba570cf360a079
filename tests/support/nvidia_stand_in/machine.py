"""What the stand-ins run on: a computer with one GPU, whose memory is the host's."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.nvidia_stand_in.enums import CUresult

ALIGNMENT, GARBAGE, NULL_STREAM, CONTEXT = 256, 0xA5, 0, 77
Work = Callable[[], None]


class RefusedError(Exception):
    """A function's error code."""


@dataclass
class Queue:
    """A stream: what is to be done, and, while it captures, what is only written down."""

    waiting: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    broken: bool = False

    def add(self, work: Work) -> None:
        (self.waiting if self.captured is None else self.captured).append(work)

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@dataclass
class Machine:
    """A computer with one GPU, and all that a process holds of it."""

    gpus: int = 1
    name: str = "Stand-in GPU"
    capability: tuple[int, int] = (8, 6)
    total: int = 1 << 30
    calls: list[str] = field(default_factory=list)
    held: dict[int, Any] = field(default_factory=dict)
    streams: dict[int, Queue] = field(default_factory=lambda: {NULL_STREAM: Queue()})
    objects: dict[int, Any] = field(default_factory=dict)
    """Events, captured graphs and graphs that can be launched."""

    @property
    def used(self) -> int:
        return sum(len(memory) - ALIGNMENT for memory in self.held.values())

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.calls)


_machines = [Machine()]
_handles = itertools.count(1000)
thread = threading.local()


def reset(**settings: Any) -> Machine:
    """Another computer, with nothing of the earlier one."""
    _machines[:] = [Machine(**settings)]
    thread.context = None
    return _machines[0]


def machine() -> Machine:
    """The computer as it is now."""
    return _machines[0]


def view(address: int, nbytes: int) -> np.ndarray:
    """Bytes of device memory. Raises RefusedError for what is not allocated."""
    for start, memory in machine().held.items():
        if start <= address and address + nbytes <= start + len(memory) - ALIGNMENT:
            offset = address - memory.ctypes.data
            return memory[offset : offset + nbytes]
    raise RefusedError(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS)


def has_context() -> bool:
    """Whether this thread may use the GPU."""
    return getattr(thread, "context", None) == CONTEXT


def allocate(nbytes: int) -> int:
    """An address of new memory. Raises RefusedError where there is not so much."""
    if nbytes > machine().total - machine().used:
        raise RefusedError(CUresult.CUDA_ERROR_OUT_OF_MEMORY)
    memory = np.full(nbytes + ALIGNMENT, GARBAGE, np.uint8)
    start = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
    machine().held[start] = memory
    return start


def queue(stream: int) -> Queue:
    """A stream by its handle. Raises RefusedError."""
    return find(machine().streams, stream)


def find(table: dict[int, Any], handle: int) -> Any:
    if int(handle) not in table:
        raise RefusedError(CUresult.CUDA_ERROR_INVALID_HANDLE)
    return table[int(handle)]


def new(table: dict[int, Any], content: Any) -> int:
    handle = next(_handles)
    table[handle] = content
    return handle
