"""How long a handler may take: it is interrupted, wherever it is in Python, when its time is over."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A handler that catches the interruption and goes on is interrupted again.
_AGAIN_AFTER_SECONDS = 0.5


class HandlerTimeout(BaseException):
    """The handler took longer than it may. Like KeyboardInterrupt, nothing that `except Exception` catches."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises HandlerTimeout in the block when it takes longer; a statement that the database works on ends first.

    Signals reach the main thread only, which is where Lambda runs a function; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if rest and time.monotonic() - started >= rest:
            # Somebody else's timer, which ends whatever cannot be interrupted.
            signal.signal(signal.SIGALRM, before)
            signal.raise_signal(signal.SIGALRM)
        raise HandlerTimeout(f"It took longer than {seconds:g} s.")

    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, interrupt)
    rest, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if rest:
            # Somebody else's timer, which goes on.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, rest - (time.monotonic() - started)), interval)


# What an invocation keeps for its own statements and its commit, and for telling the queue.
_KEPT_SECONDS = 3.0
# With less than this no handler is begun.
_LEAST_SECONDS = 1.0


class Budget:
    """The time that an invocation has for its handlers; `time_left` is in seconds."""

    def __init__(self, time_left: Callable[[], float]) -> None:
        self._time_left = time_left
        self._used = False

    def allows(self, wanted: float) -> bool:
        """Whether handlers that may take `wanted` seconds in all can be begun.

        The first ones are, even where it is scarce: nobody would ever have more for them.
        """
        left = self.left()
        allowed = left >= wanted or (left >= _LEAST_SECONDS and not self._used)
        self._used = self._used or allowed
        return allowed

    def left(self) -> float:
        return self._time_left() - _KEPT_SECONDS
