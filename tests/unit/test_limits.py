"""How long handlers may take, and what an invocation has left for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from random import Random

import pytest

from chalicelib.postern.processing.limits import Clock, HandlerTimeout, within
from devstack.settings import PROJECT


def test_what_takes_longer_is_interrupted_wherever_it_is() -> None:
    def work() -> None:
        while True:
            time.sleep(0.001)

    with pytest.raises(HandlerTimeout, match=r"longer than 0.05 s"):
        within(0.05, work)


def test_what_is_in_time_is_not_interrupted_afterwards() -> None:
    before = signal.getsignal(signal.SIGALRM)
    assert within(0.05, lambda: "done") == "done"
    assert signal.getsignal(signal.SIGALRM) is before
    rest, _ = signal.getitimer(signal.ITIMER_REAL)
    assert rest == 0 or rest > 1  # the test's own


def test_whenever_its_time_ends_nothing_is_left_that_would_interrupt_others() -> None:
    """Around the end of what takes as long as it may, a few thousand times; while somebody keeps what was raised, whose
    frames hold what was at work.
    """
    before, tests_own = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)
    ended: Counter[type[BaseException]] = Counter()
    chance = Random(1)
    try:
        for _ in range(10_000):
            try:
                within(60e-6, partial(fail_after, chance.randrange(4_000)))
            except (ZeroDivisionError, HandlerTimeout) as exc:
                ended[type(exc)] += 1
                left = (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL))
                assert left == (before, (0.0, 0.0))
    finally:
        signal.setitimer(signal.ITIMER_REAL, *tests_own)
    assert ended.keys() == {ZeroDivisionError, HandlerTimeout}


def fail_after(steps: int) -> None:
    for _ in range(steps):
        pass
    raise ZeroDivisionError


def test_somebody_elses_timer_goes_on() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    tests_own = signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        within(1, lambda: None)
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
from chalicelib.postern.processing.limits import within
signal.setitimer(signal.ITIMER_REAL, 0.3)
def work():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
within(0.05, work)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=20)
    assert done.returncode == -signal.SIGALRM


def test_in_another_thread_there_is_no_limit() -> None:
    ended: list[bool] = []

    def work() -> None:
        within(0.001, lambda: time.sleep(0.01))
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

    def work() -> None:
        while not interrupted:
            with suppress(HandlerTimeout):
                time.sleep(0.001)

    with pytest.raises(HandlerTimeout):
        within(0.05, work, interrupt)
    assert set(interrupted) == {"postern-alarm"}
    assert time.monotonic() - started < 5


def test_nothing_is_interrupted_after_its_time() -> None:
    interrupted: list[int] = []
    within(0.2, lambda: None, lambda: interrupted.append(1))
    within(5, lambda: time.sleep(0.3), lambda: interrupted.append(2))
    assert interrupted == []


def test_an_invocations_time_is_less_what_it_keeps_for_itself() -> None:
    left = [30.0]
    clock = Clock(lambda: left[0])
    assert (clock.left(), clock.has_any, clock.is_whole) == (27.0, True, True)
    left[0] = 20.0
    assert (clock.has_any, clock.is_whole) == (True, False)
    left[0] = 3.5
    assert not clock.has_any
