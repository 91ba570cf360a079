"""Lets threads share a runner: executors with buffers of their own serve one run each at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition, get_ident
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, wrong
from dipgo.common.machine import MOST_THREADS

OnStep: TypeAlias = Callable[[int], object]
"""Called with the step that a segment has just run for; steps without a call are left out."""


def closed(name: str) -> DipgoError:
    """Returns the error for the use of what has been closed."""
    return DipgoError(
        name,
        found="a runner that is closed",
        expected="one that is open",
        remedy="load the export again",
    )


class PlanExecutor(Protocol):
    """Runs one list of launches, for one thread at a time."""

    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """Returns the result, and the seconds spent in each segment or in all of them together."""


class Clones:
    """Executors that share weights and engines, but no buffers.

    A run takes one that is free, or waits until one is: any number of threads may run at once.

    Args:
        make: Returns a new executor.
        count: The number of executors, and so of runs at a time.
        name: Where an error is.

    Raises:
        DipgoError: `count` is no number of executors, or one cannot be made.
    """

    def __init__(self, make: Callable[[], PlanExecutor], count: int, name: str) -> None:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise wrong("clones", count, "a whole number of at least 1")
        if count > MOST_THREADS:
            expected = f"at most {MOST_THREADS} on this machine: each takes buffers of its own"
            raise wrong("clones", count, expected, "take one a core, or fewer")
        self._name, self._process = name, os.getpid()
        self._free = [make() for _ in range(count)]
        self._running: set[int] = set()
        self._change, self._is_closed = Condition(), False

    def run(
        self, inputs: Mapping[str, NDArray[Any]], on_step: OnStep = lambda step: None
    ) -> tuple[NDArray[Any], dict[str, float]]:
        """Runs on an executor that is free, see `PlanExecutor.run`.

        Raises:
            DipgoError: The run begins within another of the same thread, or in a process that was
                forked from the one which loaded the export.
        """
        with self._executor() as executor:
            return executor.run(inputs, on_step)

    def close(self) -> None:
        """Waits for the runs that go on, and drops all executors; further runs are refused.

        Raises:
            DipgoError: It is called within a run of the same thread.
        """
        with self._change:
            if get_ident() in self._running:
                raise DipgoError(
                    self._name,
                    found="close() within a run",
                    expected="the run to end first",
                    remedy="close it after the run, not in its callback",
                )
            self._is_closed = True
            self._change.notify_all()
            # In a forked process no thread of the first one is there to end its run.
            while self._running and os.getpid() == self._process:
                self._change.wait()
            self._free.clear()

    @contextmanager
    def _executor(self) -> Iterator[PlanExecutor]:
        self._check_process()
        thread = get_ident()
        with self._change:
            if thread in self._running:
                raise DipgoError(
                    self._name,
                    found="a run within a run of the same thread",
                    expected="the first to end before the second begins",
                    remedy="run after the first, not in its callback, or run a clone() of it",
                )
            while not self._free and not self._is_closed:
                self._change.wait()
            if self._is_closed:
                raise closed(self._name)
            executor = self._free.pop()
            self._running.add(thread)
        try:
            yield executor
        finally:
            with self._change:
                self._free.append(executor)
                self._running.discard(thread)
                self._change.notify_all()

    def _check_process(self) -> None:
        """Refuses a forked process: the engines' threads are not there, and a run would hang."""
        if os.getpid() != self._process:
            raise DipgoError(
                self._name,
                found="a process that was forked after the export was loaded",
                expected="the process that loaded it",
                remedy="load the export in the new process, or start it with the method spawn",
            )
