"""Lets signals end a command in order: what is half-written is removed, and one line is printed."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_SECONDS = 5.0
"""The time after a signal in which others are ignored: batch systems send several at once."""

AGAIN_SECONDS = 0.05

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class EndedError(BaseException):
    """Raised wherever the command is when a signal asks for its end.

    It is no `Exception`, so that nothing takes it for an error to go on after.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """The signal that ends a command, once one has come.

    Attributes:
        number: Its number, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._when = -GRACE_SECONDS

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raises what ends the command, unless another signal has just done so."""
        now = time.monotonic()
        if number != signal.SIGINT and now - self._when < GRACE_SECONDS:
            return
        self.number, self._when = self.number or number, now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise EndedError(number)

    def raise_again(self, unraisable: Any) -> bool:
        """Sends the signal again if Python could not raise its exception; returns whether it did.

        Exceptions in destructors and callbacks are printed and lost.
        """
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | EndedError):
            return False
        self._when = -GRACE_SECONDS
        number = getattr(unraisable.exc_value, "number", signal.SIGINT)
        again = threading.Timer(AGAIN_SECONDS, signal.raise_signal, [number])
        again.daemon = True
        again.start()
        return True


@contextmanager
def orderly_end() -> Iterator[Signals]:
    """Has SIGINT, SIGTERM and SIGHUP raise exceptions; those that the process ignores stay ignored.

    In another thread than the main one, to which no signals come, nothing changes.
    """
    signals, hook = Signals(), sys.unraisablehook
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def see_unraisable(unraisable: Any) -> None:
        if not signals.raise_again(unraisable):
            hook(unraisable)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    sys.unraisablehook = see_unraisable
    try:
        for number in ours:
            signal.signal(number, signals.handle)
        yield signals
    finally:
        for number, old in ours.items():
            signal.signal(number, old)
        sys.unraisablehook = hook
