"""Postern's own lines: JSON as Powertools writes it, whatever a sender has written."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.postern.running import logs


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_says_what_it_is_of_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    logs.line("event.failed", failed=True, source="shop", reason=None, number=3)
    [line] = lines(capsys)
    assert list(line)[:4] == ["level", "message", "timestamp", "service"]
    assert (line["level"], line["message"], line["service"]) == ("WARNING", "event.failed", "postern")
    assert (line["source"], line["number"], "reason" in line) == ("shop", 3, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\+0000", line["timestamp"])
    at = datetime.strptime(line["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z")
    assert abs((at - before).total_seconds()) < 5


def test_a_crash_has_the_same_beginning(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Powertools writes to what was the standard output when its logger was made, which another test may have done.
    monkeypatch.setattr(logs.logger().registered_handler, "stream", sys.stdout)
    logs.line("one")
    try:
        raise LookupError("x")
    except LookupError:
        logs.crash("request.failed", source="shop")
    one, crash = lines(capsys)
    assert list(one)[:4] == list(crash)[:4]
    assert len(one["timestamp"]) == len(crash["timestamp"])
    assert crash["exception_name"] == "LookupError"


@pytest.mark.parametrize("text", ["\ud800", "a\nb", "\x1b[2J", '"', "ü", "\u2028"])
def test_whatever_a_sender_wrote_is_one_line_that_can_be_read(capsys: pytest.CaptureFixture[str], text: str) -> None:
    logs.line("event.processed", type=text)
    out = capsys.readouterr().out
    assert out.endswith("\n") and out.count("\n") == 1
    assert json.loads(out)["type"] == text
    assert "\x1b" not in out
