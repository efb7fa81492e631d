"""How long handlers may take, and what an invocation has left for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from chalicelib.postern.processing.limits import Clock, HandlerTimeout, time_limit
from devstack.settings import PROJECT


def test_what_takes_longer_is_interrupted_wherever_it_is() -> None:
    with pytest.raises(HandlerTimeout, match=r"longer than 0.05 s"), time_limit(0.05):
        while True:
            time.sleep(0.001)


def test_what_is_in_time_is_not_interrupted_afterwards() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.05):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    rest, _ = signal.getitimer(signal.ITIMER_REAL)
    assert rest == 0 or rest > 1  # the test's own


def test_somebody_elses_timer_goes_on() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    tests_own = signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        with time_limit(1):
            pass
        rest, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 50 < rest <= 60
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *tests_own)
    assert seen == []


def test_what_cannot_be_interrupted_is_ended_by_the_timer_around_it() -> None:
    """As a local worker ends itself, which Lambda does from outside."""
    code = """
import signal
from chalicelib.postern.processing.limits import time_limit
signal.setitimer(signal.ITIMER_REAL, 0.3)
with time_limit(0.05):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=20)
    assert done.returncode == -signal.SIGALRM


def test_in_another_thread_there_is_no_limit() -> None:
    ended: list[bool] = []

    def work() -> None:
        with time_limit(0.001):
            time.sleep(0.01)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert ended == [True]


def test_what_a_signal_cannot_reach_is_interrupted_by_another_thread() -> None:
    interrupted: list[str] = []
    started = time.monotonic()

    def interrupt() -> None:
        interrupted.append(threading.current_thread().name)

    with pytest.raises(HandlerTimeout), time_limit(0.05, interrupt):
        while not interrupted:
            with suppress(HandlerTimeout):
                time.sleep(0.001)
        raise HandlerTimeout(0.05)
    assert set(interrupted) == {"postern-alarm"}
    assert time.monotonic() - started < 5


def test_nothing_is_interrupted_after_its_time() -> None:
    interrupted: list[int] = []
    with time_limit(0.2, lambda: interrupted.append(1)):
        pass
    with time_limit(5, lambda: interrupted.append(2)):
        time.sleep(0.3)
    assert interrupted == []


def test_an_invocations_time_is_less_what_it_keeps_for_itself() -> None:
    left = [30.0]
    clock = Clock(lambda: left[0])
    assert (clock.left(), clock.has_any, clock.is_whole) == (27.0, True, True)
    left[0] = 20.0
    assert (clock.has_any, clock.is_whole) == (True, False)
    left[0] = 3.5
    assert not clock.has_any
