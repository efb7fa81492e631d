"""The checker of `make chaos`, on histories that were doctored: each promise that is broken is seen, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.history import Found, Kind, Sent, tally, verdict

HISTORY = {
    "a": Sent(Kind.PLAIN, [202]),
    "b": Sent(Kind.PLAIN, [None, 202, 202]),
    "c": Sent(Kind.PLAIN, [None, 503]),  # unknown: it came to be
    "d": Sent(Kind.PLAIN, [None]),  # unknown: it did not
    "e": Sent(Kind.FLAKY, [202]),
    "f": Sent(Kind.POISON, [202]),
    "g": Sent(Kind.FORGED, [401]),
    "h": Sent(Kind.FORGED, [None]),
}
FOUND = Found(
    effects={"a": 1, "b": 1, "c": 1, "e": 1},
    rows={**{key: ["processed"] for key in "abce"}, "f": ["dead"]},
    letters=frozenset({"f"}),
    waiting=0,
    missing=0,
)


def test_what_went_well_breaks_nothing() -> None:
    assert verdict(HISTORY, FOUND) == {}
    assert tally(HISTORY) == {"accepted": 4, "unknown": 3, "refused": 1, "answers": 11}


@pytest.mark.parametrize(
    ("promise", "key", "found"),
    [
        ("lost", "a", replace(FOUND, effects={**FOUND.effects, "a": 0}, rows={**FOUND.rows, "a": []})),
        ("processed without its effect", "a", replace(FOUND, effects={**FOUND.effects, "a": 0})),
        ("effects twice", "b", replace(FOUND, effects={**FOUND.effects, "b": 2})),
        ("effects twice", "c", replace(FOUND, effects={**FOUND.effects, "c": 2})),
        ("stored twice", "b", replace(FOUND, rows={**FOUND.rows, "b": ["processed", "processed"]})),
        ("an effect without its event", "d", replace(FOUND, effects={**FOUND.effects, "d": 1})),
        ("left as failed", "e", replace(FOUND, rows={**FOUND.rows, "e": ["failed"]})),
        ("dead, though nothing is wrong with it", "a", replace(FOUND, rows={**FOUND.rows, "a": ["dead"]})),
        ("processed, though it cannot be", "f", replace(FOUND, rows={**FOUND.rows, "f": ["processed"]})),
        ("an effect of what failed", "f", replace(FOUND, effects={**FOUND.effects, "f": 1})),
        ("dead without its letter", "f", replace(FOUND, letters=frozenset())),
        ("a letter of what was processed", "a", replace(FOUND, letters=frozenset({"a", "f"}))),
        ("a forgery was let in", "g", replace(FOUND, rows={**FOUND.rows, "g": ["processed"]})),
        ("a forgery was let in", "h", replace(FOUND, effects={**FOUND.effects, "h": 1})),
        ("out of nowhere", "x", replace(FOUND, rows={**FOUND.rows, "x": ["processed"]})),
        ("out of nowhere", "x", replace(FOUND, effects={**FOUND.effects, "x": 1})),
        ("stuck", "3 messages", replace(FOUND, waiting=3)),
        ("the ledger misses", "1 events", replace(FOUND, missing=1)),
    ],
)
def test_each_promise_that_is_broken_is_seen_and_no_other(promise: str, key: str, found: Found) -> None:
    assert verdict(HISTORY, found) == {promise: [key]}


@pytest.mark.parametrize("answers", [[401], [None, 415], [202, 400]])
def test_a_good_delivery_that_is_refused_is_seen(answers: list[int | None]) -> None:
    history = {"r": Sent(Kind.PLAIN, answers)}
    assert verdict(history, Found({}, {}, frozenset(), 0, 0)) == {"a good delivery was refused": ["r"]}


def test_a_forgery_that_was_accepted_is_seen_without_any_row() -> None:
    assert verdict({"g": Sent(Kind.FORGED, [202])}, Found({}, {}, frozenset(), 0, 0)) == {
        "a forgery was let in": ["g"],
    }


def test_what_nobody_answered_is_unknown() -> None:
    assert tally({"a": Sent(Kind.PLAIN, [])})["unknown"] == 1
