"""What a person sees of the wide log lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devstack.screen import Tail, short_line


def line(**entry: object) -> str:
    found = short_line(json.dumps(entry))
    return found.text if found else ""


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
    found = short_line("Traceback (most recent call last):")
    assert found is not None and found.text == "Traceback (most recent call last):"
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


def test_of_a_thousand_equal_lines_a_few_are_printed_and_then_how_many_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    log, tail = tmp_path / "api.log", Tail(lambda: now[0])
    log.touch()
    tail.follow(log)

    def come(number: int, **other: object) -> list[str]:
        with log.open("a") as file:
            for n in range(number):
                entry = {"level": "INFO", "message": "event.processed", "source": "s", "type": "t", "id": f"i-{n}"}
                file.write(json.dumps(entry | other) + "\n")
        tail.print_new()
        return [text[10:] for text in capsys.readouterr().out.splitlines()]

    assert come(1000) == [f"event.processed    s  t  i-{n}" for n in range(5)]
    assert come(1, type="other") == ["event.processed    s  other  i-0"]
    now[0] = 4.0
    assert come(1000) == []
    now[0] = 10.0
    assert come(0) == ["event.processed    s  t  … 1,995 more in 10 s, 200 a second"]
    # It goes on: the count alone. It rests: the next one is printed.
    assert come(3) == []
    now[0] = 16.0
    assert come(0) == ["event.processed    s  t  … 3 more in 6 s"]
    now[0] = 30.0
    assert come(0) == []
    assert come(1) == ["event.processed    s  t  i-0"]


def test_what_is_no_line_of_ours_is_printed_as_often_as_it_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback of which lines were missing would be none."""
    log, tail = tmp_path / "api.log", Tail(lambda: 1.0)
    log.write_text("  ^^^^\n" * 50)
    tail.follow(log)
    tail.print_new()
    tail.end()
    assert capsys.readouterr().out == "  ^^^^\n" * 50


def test_what_was_counted_is_told_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, tail = tmp_path / "api.log", Tail(lambda: 1.0)
    log.write_text('{"message": "maintenance.failed", "level": "WARNING"}\n' * 7)
    tail.follow(log)
    tail.print_new()
    tail.end()
    assert capsys.readouterr().out.splitlines()[-1][10:] == "maintenance.failed   … 2 more in 0 s"
