"""What `postern status` and `postern ledger` say, and that nothing a sender wrote steers the terminal."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli import arguments, ledger, output, status

QUIET = {"minutes": 40, "expected": 12.3}
STATUS: dict[str, Any] = {
    "sources": [
        {"source": "stripe", "last_seen": "2026-11-23T12:00:00Z", "hour": 0, "day": 7, "quiet": QUIET},
        {"source": "zoom", "last_seen": None, "hour": 0, "day": 0, "quiet": None},
    ],
    "failed": 1,
    "dead": 0,
    "oldest_failed": {
        "id": "0",
        "source": "stripe",
        "type": "\x1b[2J",
        "error": "ValueError: \x1b]0;x\x07",
        "received_at": "2026-11-23T12:00:00Z",
    },
    "ledger": {"balanced": False, "missing": 3, "waiting": 0, "checked_at": "2026-11-23T12:00:00Z", "stale": True},
    "well": False,
    "open_issues": 2,
    "open_drift": 1,
    "running_replays": 1,
    "identity": {"same_bytes": 4, "other_bytes": 1},
}
COUNTS = {"accepted": 5, "stored": 2, "duplicates": 0, "written_off": 0, "missing": 3, "surplus": 0}
LEDGER: dict[str, Any] = {
    "since": "2026-11-22T12:00:00Z",
    "to": "2026-11-23T12:00:00Z",
    "checked_at": "2026-11-23T12:00:00Z",
    "missing": 3,
    "waiting": 1,
    "sources": [{"source": "stripe", **COUNTS, "failed": 0, "dead": 0}],
    "minutes": [{"source": "stripe", "minute": "2026-11-23T11:00:00Z", **COUNTS, "note": None}],
}


def test_status_says_what_needs_a_person() -> None:
    page = status._page(STATUS, everything=False)
    assert "QUIET for 40 min, expected about 12 with events" in page
    assert "3 MISSING" in page
    assert "NOT since then" in page
    assert "4 of the last day with the bytes of an earlier event" in page
    assert "1 of the last day under a known id with OTHER BYTES" in page
    assert "zoom" not in page
    assert "zoom" in status._page(STATUS, everything=True)
    assert "\x1b" not in page
    assert "\x07" not in page


def test_json_moves_no_cursor_and_turns_no_text_around() -> None:
    """C1 controls and bidirectional marks may stand in JSON as they are."""
    for printed in (output.as_json, output.as_json_line, output.as_line):
        text = printed({"a": "\x9b2J\x7f\u202e\u2066é"})
        assert json.loads(text) == {"a": "\x9b2J\x7f\u202e\u2066é"}
        assert not {"\x9b", "\x7f", "\u202e", "\u2066"} & set(text)
        assert "é" in text


def test_the_ledger_says_how_many_are_in_no_queue() -> None:
    page = ledger._page(LEDGER)
    assert "2 are missing and in no queue; of 3 that are in no table, the queues may hold 1" in page
    assert "It balances (" in ledger._page({**LEDGER, "missing": 0, "waiting": 0})
    assert "Not checked yet" in ledger._page({**LEDGER, "checked_at": None})
    assert "Nothing was accepted" in ledger._page({**LEDGER, "sources": []})


@pytest.mark.parametrize(
    ("text", "ago"), [("90m", timedelta(minutes=90)), ("24h", timedelta(days=1)), ("7d", timedelta(days=7))]
)
def test_a_moment_may_be_some_time_ago(text: str, ago: timedelta) -> None:
    assert abs(datetime.now(UTC) - ago - arguments.moment(text)) < timedelta(seconds=5)


def test_a_moment_may_be_a_time_and_is_utc_unless_it_says_otherwise() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert arguments.moment("2026-11-23T12:00:00") == arguments.moment("2026-11-23T13:00:00+01:00") == noon


@pytest.mark.parametrize("text", ["", "yesterday", "-5m", "5w", "999999d", "٣d"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be such as"):
        arguments.moment(text)


def test_what_to_type_next_is_for_the_same_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTERN_STAGE", raising=False)
    assert output.command("show ID") == "postern show ID"
    monkeypatch.setenv("POSTERN_STAGE", "prod")
    assert output.command("show ID") == "postern show ID --stage prod"
