"""What `postern status` and `postern ledger` say, and that nothing a sender wrote steers the terminal."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli import arguments, filters, ledger, output, status
from devstack.settings import PROJECT

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
    "read_only": False,
    "waiting_since": None,
    "open_issues": 2,
    "open_drift": 1,
    "running_replays": 1,
    "identity": {"same_bytes": 4, "other_bytes": 1, "bytes_alone": 2},
}
WELL: dict[str, Any] = STATUS | {
    "sources": [],
    "failed": 0,
    "oldest_failed": None,
    "ledger": STATUS["ledger"] | {"balanced": True, "missing": 0, "stale": False},
    "well": True,
    "open_issues": 0,
    "open_drift": 0,
    "running_replays": 0,
    "identity": {"same_bytes": 0, "other_bytes": 0, "bytes_alone": 0},
    "postponed": [],
}
POSTPONED = {
    "handler": "orders.pay",
    "events": 5,
    "since": "2026-11-23T12:20:00Z",
    "next": "2026-11-23T13:20:00Z",
    "reason": "no order yet",
}
NOTHING = {"waiting": 0, "in_work": 0, "delayed": 0}
ANSWERS: dict[str, Any] = {
    "status": WELL,
    "migrations": {"pending": [], "problem": None},
    "handlers": {"doubts": []},
    "queues": {"queue": NOTHING, "dead_letters": NOTHING},
}
AT = datetime(2026, 11, 23, 13, tzinfo=UTC)
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


def told(**seen: Any) -> list[tuple[str, str]]:
    """The needs of a healthy inbox that is different in these things."""
    answers = ANSWERS | seen.pop("answers", {})
    for gone in seen.get("problems", {}):
        del answers[gone]
    known = status.Seen(answers, seen.pop("problems", {}), at=AT, **seen)
    return [(need.weight.value, need.sentence) for need in status.needs(known)]


def test_of_a_healthy_inbox_nothing_is_said() -> None:
    assert told() == []
    page = status.page(status.Seen(ANSWERS, {}), [], everything=False)
    assert page.startswith("Nothing needs a person.\n\nNothing has come yet.")
    assert "ledger  balanced, checked 2026-11-23T12:00:00Z" in page


@pytest.mark.parametrize(
    ("seen", "weight", "said"),
    [
        (
            {"problems": {"status": "no route"}},
            "wrong",
            "The database cannot be asked, and events wait in the queue",
        ),
        (
            {"answers": {"migrations": {"pending": ["0017_x"], "problem": None}}},
            "wrong",
            "To be migrated: 0017_x (`",
        ),
        ({"answers": {"migrations": {"pending": [], "problem": "newer"}}}, "wrong", "newer"),
        ({"answers": {"status": WELL | {"read_only": True}}}, "wrong", "takes nobody's writes"),
        ({"problems": {"handlers": "orders cannot"}}, "wrong", "No event is processed, of any source: orders cannot"),
        ({"answers": {"handlers": {"doubts": ["shopp is not declared."]}}}, "look", "shopp is not declared."),
        (
            {"delays": {"a": 3, "database: full": 700}},
            "note",
            "Put off 703 times in the last ten minutes, uncharged, mostly for: database: full",
        ),
        (
            {"delays": {"a": 7}, "answers": {"queues": {"queue": NOTHING | {"in_work": 1}, "dead_letters": NOTHING}}},
            "wrong",
            "Put off 7 times in the last ten minutes",
        ),
        ({"problems": {"queues": "no right"}}, "look", "The queues could not be asked: no right"),
        ({"maintenance": "ledger: gone"}, "wrong", "The last run of maintenance failed: ledger: gone"),
        (
            {
                "maintenance": "MaintenanceFailed",
                "answers": {
                    "status": WELL | {"failing_duties": [{"name": "counts", "reason": "42501", "done_at": AT}]}
                },
            },
            "wrong",
            f"Maintenance fails at 'counts', which was done last at {AT}: 42501",
        ),
        ({"without_secret": ("zoom", "slack")}, "look", "Without a secret, and so answering 503: zoom, slack."),
        ({"answers": {"status": WELL | {"dead": 2}}}, "look", "2 dead events, which nothing tries again"),
        ({"answers": {"status": WELL | {"failed": 2}}}, "note", "2 failed and will be tried again"),
        (
            {"answers": {"queues": {"queue": NOTHING, "dead_letters": NOTHING | {"waiting": 4}}}},
            "look",
            "About 4 dead letters: `postern dead` lists them.",
        ),
        (
            {
                "answers": {
                    "queues": {"queue": NOTHING | {"in_work": 5}, "dead_letters": NOTHING},
                    "status": WELL | {"waiting_since": "2026-11-23T12:20:00Z"},
                }
            },
            "wrong",
            "About 5 accepted events wait for the database, the oldest for 40 min.",
        ),
        (
            {
                "answers": {
                    "queues": {"queue": NOTHING | {"in_work": 5}, "dead_letters": NOTHING},
                    "status": WELL | {"waiting_since": "2026-11-23T12:20:00Z", "postponed": [POSTPONED]},
                }
            },
            "note",
            "5 events are put off by orders.pay, the first since 2026-11-23T12:20:00Z: no order yet",
        ),
        (
            {"answers": {"status": WELL | {"identity": WELL["identity"] | {"bytes_alone": 2}}}},
            "note",
            "2 deliveries of the last day were taken for repetitions for their bytes alone",
        ),
    ],
)
def test_what_needs_a_person_is_a_sentence(seen: dict[str, Any], weight: str, said: str) -> None:
    [(found, sentence)] = told(**seen)
    assert (found, said in sentence) == (weight, True), sentence


def test_what_has_waited_for_a_moment_only_is_no_need() -> None:
    queues = {"queue": NOTHING | {"waiting": 5}, "dead_letters": NOTHING}
    just_now = WELL | {"waiting_since": "2026-11-23T12:58:00Z"}
    assert told(answers={"queues": queues, "status": just_now}) == []


def test_the_heaviest_comes_first_and_nothing_a_sender_wrote_steers_the_terminal() -> None:
    seen = status.Seen(ANSWERS | {"status": STATUS}, {}, at=AT)
    found = list(status.needs(seen))
    page = status.page(seen, found, everything=False)
    assert "stripe is QUIET for 40 min, where about 12 have events" in page
    assert "3 accepted events are MISSING" in page
    assert "Maintenance has not run for half an hour" in page
    assert "4 of the last day with the bytes of an earlier event" in page
    assert "1 deliveries of the last day came under a known id with OTHER BYTES" in page
    assert "Nothing needs a person" not in page
    assert "zoom" not in page
    assert "zoom" in status.page(seen, found, everything=True)
    assert not {"\x1b", "\x07"} & {*page}


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
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("1w", timedelta(days=7)),
    ],
)
def test_a_moment_may_be_some_time_ago(text: str, ago: timedelta) -> None:
    assert abs(datetime.now(UTC) - ago - arguments.moment(text)) < timedelta(seconds=5)


def test_a_moment_may_be_a_time_and_is_utc_unless_it_says_otherwise() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert arguments.moment("2026-11-23T12:00:00") == arguments.moment("2026-11-23T13:00:00+01:00") == noon


def test_a_moment_may_be_a_day() -> None:
    assert arguments.moment("2026-11-23") == datetime(2026, 11, 23, tzinfo=UTC)
    assert arguments.moment("today") - arguments.moment("yesterday") == timedelta(days=1)
    assert arguments.moment("today").time() == datetime.min.time()
    assert arguments.moment("99999w").year < 200


def test_a_source_that_nobody_declared_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTERN_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SOURCES_FILE", str(tmp_path / "sources.toml"))
    assert filters.undeclared("shop") is None  # nobody knows
    (tmp_path / "sources.toml").write_text('[shop]\nprovider = "github"\n')
    assert filters.undeclared("shop") is None
    assert filters.undeclared("shopp") == "sources.toml declares no source 'shopp'; it has 'shop'."
    assert filters.undeclared("zoom") == "sources.toml declares no source 'zoom'."
    assert filters.undeclared(None) is None


def test_a_terminal_that_is_not_utf_8_is_written_to_all_the_same() -> None:
    command = [sys.executable, "-m", "cli", "providers", "stripe"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "stripe" in done.stdout, done.stderr) == (0, True, "")


@pytest.mark.parametrize("text", ["", "someday", "-5m", "5y", "999999d", "٣d"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be such as"):
        arguments.moment(text)


def test_what_to_type_next_is_for_the_same_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTERN_STAGE", raising=False)
    assert output.command("show ID") == "postern show ID"
    monkeypatch.setenv("POSTERN_STAGE", "prod")
    assert output.command("show ID") == "postern show ID --stage prod"


@pytest.mark.parametrize(("columns", "cut"), [(50, True), (200, False), (20, False)])
def test_on_a_terminal_the_last_column_is_cut_where_its_line_would_break(
    columns: int, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [{"id": "01a20930", "error": "KeyError: " + "x" * 100}, {"id": "01a20931", "error": "short"}]
    lines = output.table(rows, {"id": "ID", "error": "ERROR"}).splitlines()
    assert lines[2] == "01a20931  short"
    assert max(map(len, lines)) == (50 if cut else 70)
