"""What a person sees of the wide log lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devstack.screen import Tail, short_line


def line(**entry: object) -> str:
    return short_line(json.dumps(entry)) or ""


def test_a_delivery_is_one_short_line() -> None:
    text = line(
        level="INFO", message="delivery.accepted", source="github", type="push", status=202, ack_ms=3.1, id="01a2"
    )
    assert text[10:] == "delivery.accepted  github  push  202  3.1 ms  01a2"


def test_a_failure_says_why_and_which_attempt_it_was() -> None:
    text = line(
        level="WARNING", message="event.failed", source="s", type="t", reason="ValueError: x", attempts=2, id="i"
    )
    assert text[10:] == "event.failed       s  t  ValueError: x  attempt 2  i"


def test_a_refusal_says_what_exactly_was_wrong() -> None:
    """The sender is not told; the person at the terminal has to be."""
    text = line(message="delivery.rejected", source="s", status=401, reason="invalid_signature", detail="stale")
    assert text[10:] == "delivery.rejected  s  401  invalid_signature  stale"


def test_metrics_and_batches_are_not_shown() -> None:
    shown = line(level="INFO", message="event.processed", source="s", type="t", id="i", _aws={"Timestamp": 1})
    assert shown[10:] == "event.processed    s  t  i"
    assert line(level="INFO", message="batch.consumed", batch_size=1, duration_ms=2.0) == ""


def test_nothing_that_a_sender_wrote_steers_the_terminal() -> None:
    assert "\x1b" not in line(level="INFO", message="event.processed", type="\x1b[2J\r\n")


def test_what_is_no_line_of_ours_is_shown_as_it_is() -> None:
    assert short_line("Traceback (most recent call last):") == "Traceback (most recent call last):"
    assert short_line("") is None


def test_a_line_that_is_still_being_written_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, tail = tmp_path / "api.log", Tail()
    log.write_text("one\ntw")
    tail.follow(log)
    tail.print_new()
    assert capsys.readouterr().out == "one\n"
    log.write_text("one\ntwo\n")
    tail.print_new()
    assert capsys.readouterr().out == "two\n"
