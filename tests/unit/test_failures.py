"""How a handler's failure is told, and which failures are the same issue."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from chalicelib.postern.processing.failures import failure_of


def told(error: BaseException) -> str:
    return failure_of(error, "invoices.mark_paid").text


# Telling a failure


def raised_by(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as failure:
        return failure
    raise AssertionError("it did not fail")


def fail(message: str = "no such customer", depth: int = 0) -> None:
    if depth:
        fail(message, depth - 1)
    raise ValueError(message)


def test_a_failure_is_told_in_its_first_line_and_then_by_its_traceback() -> None:
    first, blank, *trace = told(raised_by(fail)).splitlines()
    assert (first, blank) == ("ValueError: no such customer", "")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ValueError: no such customer"


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028"])
def test_the_first_line_of_a_long_message_is_the_first_line(separator: str) -> None:
    text = told(raised_by(lambda: fail(f"one{separator}two")))
    assert text.startswith("ValueError: one\n\n")
    assert text.rstrip().endswith("two")


@pytest.mark.parametrize(
    ("failure", "first"),
    [
        (SystemExit(), "SystemExit: "),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("\nsecond"), "ValueError: "),
        (KeyError("id"), "KeyError: 'id'"),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
    ],
    ids=["empty", "a number", "an empty first line", "a key", "a group"],
)
def test_a_failure_with_an_odd_message_has_a_first_line(failure: BaseException, first: str) -> None:
    assert told(failure).splitlines()[0] == first


def test_of_a_long_traceback_the_end_is_kept() -> None:
    text = told(raised_by(lambda: fail(depth=400)))
    assert len(text) < 10_000
    assert text.rstrip().endswith("ValueError: no such customer")


def test_a_message_without_end_has_one() -> None:
    text = told(raised_by(lambda: fail("x" * 1_000_000)))
    assert len(text) < 10_000
    assert len(text.splitlines()[0]) <= 1_000


def test_what_a_failure_came_of_is_told_too() -> None:
    def convert() -> None:
        try:
            fail("the cause")
        except ValueError as exc:
            raise LookupError("the failure") from exc

    text = told(raised_by(convert))
    assert text.startswith("LookupError: the failure\n")
    assert "ValueError: the cause" in text


def test_a_nul_or_half_a_surrogate_pair_in_a_message_is_no_trouble_here() -> None:
    """The adapter, which knows what PostgreSQL's text can hold, replaces them."""
    assert told(raised_by(lambda: fail("a\0b\ud800"))).startswith("ValueError: a\0b\ud800\n")


class Speechless(Exception):
    def __str__(self) -> str:
        raise AttributeError("no message")


def test_a_failure_that_cannot_tell_itself_is_told_by_its_name() -> None:
    """Telling it is part of processing the whole batch: it must not fail on top."""

    def speechless() -> None:
        raise Speechless

    assert told(raised_by(speechless)).splitlines()[0].startswith("Speechless")


def belonging_to(module: str, function: FunctionType, **names: Any) -> FunctionType:
    """The same function, as if it stood in that module."""
    return FunctionType(function.__code__, {"__name__": module, **names}, argdefs=function.__defaults__)


def attempt_in_front() -> BaseException | None:
    try:
        work()  # type: ignore[name-defined]  # noqa: F821 -- given by belonging_to
    except ValueError as failure:
        return failure
    return None


def run_in_front() -> None:
    work()  # type: ignore[name-defined]  # noqa: F821 -- given by belonging_to


@pytest.mark.parametrize(
    "module",
    [
        "chalicelib.postern.adapters.postgres",
        "chalicelib.postern.processing.handling",
        "chalicelib.postern.processing.engine",
    ],
)
def test_posterns_own_frames_in_front_are_left_out(module: str) -> None:
    run = belonging_to("chalicelib.postern.processing.handling", run_in_front, work=fail)
    failure = belonging_to(module, attempt_in_front, work=run, ValueError=ValueError)()
    text = told(failure)
    assert "in_front" not in text
    assert ", in fail\n" in text
    assert text.rstrip().endswith("ValueError: no such customer")


def test_posterns_frames_behind_the_handlers_are_kept() -> None:
    """A handler that calls into Postern, and how it failed there, is its own story."""
    library = belonging_to("chalicelib.postern.processing.engine", run_in_front, work=fail)
    handler_ = belonging_to("chalicelib.handlers.invoices", run_in_front, work=library)
    failure = belonging_to(
        "chalicelib.postern.processing.handling", attempt_in_front, work=handler_, ValueError=ValueError
    )()
    assert told(failure).count(", in run_in_front\n") == 2


def test_a_failure_of_posterns_own_still_tells_where_it_came_from() -> None:
    failure = belonging_to(
        "chalicelib.postern.processing.handling", attempt_in_front, work=None, ValueError=TypeError
    )()
    assert told(failure).startswith("TypeError: ")
