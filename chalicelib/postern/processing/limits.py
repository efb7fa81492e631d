"""How long a handler may take. When its time is over it is interrupted, in Python and in the database."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TypeVar

_T = TypeVar("_T")

# A handler that catches the interruption and goes on is interrupted again.
_AGAIN_AFTER_SECONDS = 0.5


class HandlerTimeout(BaseException):
    """The handler took longer than it may. Like KeyboardInterrupt, nothing that `except Exception` catches.

    `cut_short`: what ended was the invocation's time, which is less than the handler's own.
    """

    def __init__(self, seconds: float, *, cut_short: bool = False) -> None:
        super().__init__(f"It took longer than {seconds:.3g} s.")
        self.cut_short = cut_short


def within(
    seconds: float, work: Callable[[], _T], interrupt: Callable[[], None] | None = None, *, cut_short: bool = False
) -> _T:
    """What `work` returns. Raises HandlerTimeout in it when it takes longer, and afterwards where it caught that.

    Python code is reached by a signal. Code in C, such as the driver while it waits for the database, is not; what
    ends that is `interrupt`, which another thread calls. Signals reach the main thread only, which is where Lambda
    runs a function; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()

    def expire(number: int, frame: FrameType | None) -> None:
        if not at_work:
            return
        if rest and time.monotonic() - started >= rest:
            # Somebody else's timer, which ends whatever cannot be interrupted.
            signal.signal(signal.SIGALRM, before)
            signal.raise_signal(signal.SIGALRM)
        expired.append(True)
        # Never in these lines: what they put back would stay as it is, and the next signal find anybody. No context
        # manager can promise that of its own lines, which is why this is none.
        if frame is None or frame.f_code is not within.__code__:
            raise HandlerTimeout(seconds, cut_short=cut_short)

    at_work = False
    expired: list[bool] = []
    started = time.monotonic()
    rest, interval = 0.0, 0.0
    before = signal.signal(signal.SIGALRM, expire)
    try:
        rest, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_AFTER_SECONDS)
        if interrupt is not None:
            _alarm.set(seconds, interrupt)
        at_work = True
        done = work()
    finally:
        at_work = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if interrupt is not None:
            _alarm.clear()
        if rest:
            # Somebody else's timer, which goes on.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, rest - (time.monotonic() - started)), interval)
    if expired:  # and caught
        raise HandlerTimeout(seconds, cut_short=cut_short)
    return done


class _Alarm:
    """Calls a function from another thread when a time is over, and again every half second until it is cleared."""

    def __init__(self) -> None:
        self._process = 0
        self._due: float | None = None
        self._wakes: float | None = None  # when its thread looks again, without being told to; None: never
        self._call: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    def set(self, seconds: float, call: Callable[[], None]) -> None:
        if self._process != os.getpid():
            self._start()
        with self._changed:
            self._due, self._call = time.monotonic() + seconds, call
            if self._wakes is None or self._due < self._wakes:
                self._changed.notify()  # which costs more than all the rest

    def clear(self) -> None:
        """Returns when no call is being made, or will be. They are short."""
        with self._changed:
            self._due = None

    def _start(self) -> None:
        """A forked process has none of its parent's threads."""
        self._process = os.getpid()
        self._due = self._wakes = None
        self._changed = threading.Condition()
        threading.Thread(target=self._wait, args=(self._changed,), name="postern-alarm", daemon=True).start()

    def _wait(self, changed: threading.Condition) -> None:
        with changed:
            while changed is self._changed:
                self._wakes = self._due
                if self._due is None:
                    changed.wait()
                elif (rest := self._due - time.monotonic()) > 0:
                    changed.wait(rest)
                else:
                    self._due = time.monotonic() + _AGAIN_AFTER_SECONDS
                    with suppress(Exception):
                        self._call()


_alarm = _Alarm()

# What an invocation keeps for its own statements and its commit, and for telling the queue.
_KEPT_SECONDS = 3.0
# With less than this nothing is begun.
_MIN_SECONDS = 1.0
# Of the invocation's time: who had so much of it would not have more another time.
_WHOLE = 0.8


class Clock:
    """What an invocation has left for its events, in seconds; `time_left` is what it has left in all."""

    def __init__(self, time_left: Callable[[], float], whole: float | None = None) -> None:
        self._time_left = time_left
        self._whole = self.left() if whole is None else whole

    def left(self) -> float:
        return self._time_left() - _KEPT_SECONDS

    @property
    def has_any(self) -> bool:
        return self.left() >= _MIN_SECONDS

    @property
    def is_whole(self) -> bool:
        """Whether what is begun now has as much time as it could ever have."""
        return self.left() >= self._whole * _WHOLE

    def part(self, seconds: float) -> Clock:
        """A clock that runs out in `seconds`, for a part of this invocation."""
        ends = time.monotonic() + seconds + _KEPT_SECONDS
        return Clock(lambda: ends - time.monotonic(), self._whole)
