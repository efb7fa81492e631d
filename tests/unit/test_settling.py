"""How it goes on with a message: the whole of the retry policy, without a queue or a database."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.postern.processing.settling import (
    Again,
    Bury,
    Done,
    Kind,
    Outcome,
    Renew,
    RetryPolicy,
    charged_by_receives,
    settle,
)

POLICY = RetryPolicy(max_attempts=3, base_seconds=30, max_seconds=300)


def longest() -> float:
    return 1.0


def shortest() -> float:
    return 0.0


def test_waits_double_up_to_the_longest() -> None:
    assert [POLICY.delay(n, longest) for n in (1, 2, 3, 4, 5, 1000)] == [30, 60, 120, 240, 300, 300]


def test_the_last_quarter_of_a_wait_is_chance() -> None:
    assert [POLICY.delay(1, shortest), POLICY.delay(1, lambda: 0.5), POLICY.delay(1, longest)] == [22, 26, 30]


def test_what_failed_together_does_not_come_back_together() -> None:
    chance = random.Random(7)
    assert len({POLICY.delay(5, chance.random) for _ in range(100)}) > 30


def test_no_wait_is_shorter_than_a_second() -> None:
    assert RetryPolicy(3, 1, 1).delay(1, shortest) == 1


def test_an_event_that_has_not_failed_yet_waits_like_one_that_failed_once() -> None:
    assert POLICY.delay(0, longest) == POLICY.delay(1, longest)


@given(
    base=st.integers(1, 43_200),
    most=st.integers(1, 43_200),
    failures=st.integers(0, 10**9),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_every_wait_is_one_that_sqs_takes(base: int, most: int, failures: int, chance: float) -> None:
    """Whole seconds, twelve hours at most."""
    delay = RetryPolicy(3, base, most).delay(failures, lambda: chance)
    assert isinstance(delay, int)
    assert 1 <= delay <= most


@given(failures=st.integers(1, 100))
def test_a_wait_never_shrinks_as_failures_go_on(failures: int) -> None:
    assert POLICY.delay(failures, longest) <= POLICY.delay(failures + 1, longest)
    assert POLICY.delay(failures, shortest) <= POLICY.delay(failures + 1, shortest)


@pytest.mark.parametrize(
    ("most", "answers"),
    [(3, [False, False, True, True]), (1, [True, True, True, True])],
    ids=["three attempts", "one attempt"],
)
def test_the_last_attempt_is_known_as_such(most: int, answers: list[bool]) -> None:
    assert [RetryPolicy(most, 30, 300).is_last(n) for n in (1, 2, 3, 4)] == answers


def test_an_event_is_given_up_at_its_last_attempt_or_when_another_would_fail_as_well() -> None:
    assert [POLICY.gives_up(n, permanent=False) for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert POLICY.gives_up(1, permanent=True)


def test_what_is_done_is_deleted() -> None:
    for kind in set(Kind) - {Kind.RETRY, Kind.DEAD}:
        assert settle(Outcome(kind, 1), 50, POLICY, longest) == Done()


def test_what_was_charged_comes_again_after_a_wait_that_grows_with_its_attempts() -> None:
    waits = [settle(Outcome(Kind.RETRY, n), 99, POLICY, longest) for n in (1, 2)]
    assert waits == [Again(30), Again(60)]


def test_what_was_not_charged_waits_by_its_receives() -> None:
    assert settle(Outcome(Kind.RETRY), 3, POLICY, longest) == Again(120)


def test_what_was_not_charged_is_sent_anew_before_sqs_gives_up() -> None:
    assert settle(Outcome(Kind.RETRY), 89, POLICY, longest) == Again(300)
    assert settle(Outcome(Kind.RETRY), 90, POLICY, longest) == Renew(300)
    # A charged one will be dead before, and of what could not be read no copy is made.
    assert settle(Outcome(Kind.RETRY, 2), 90, POLICY, longest) == Again(60)
    assert settle(Outcome(Kind.RETRY), 90, POLICY, longest, is_event=False) == Again(300)


def test_what_is_dead_is_buried_with_its_reason() -> None:
    assert settle(Outcome(Kind.DEAD, 3, "ValueError: no"), 3, POLICY, longest) == Bury(3, "ValueError: no")


def test_what_has_no_row_is_charged_by_its_receives() -> None:
    outcomes = [charged_by_receives(n, "malformed", POLICY) for n in (1, 2, 3)]
    assert [(o.kind, o.attempts) for o in outcomes] == [(Kind.RETRY, 1), (Kind.RETRY, 2), (Kind.DEAD, 0)]


def test_patience_with_what_is_nobodys_fault_has_an_end() -> None:
    assert [POLICY.is_patient_with(n) for n in (1, 8, 9)] == [True, True, False]
