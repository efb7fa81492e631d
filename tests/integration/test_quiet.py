"""Hours that are learned from rows, who is quieter than they say, and the status that an operator sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.operating.ledger.queries import Ledger
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.quiet.actions import Watch
from chalicelib.postern.operating.quiet.queries import Hours
from chalicelib.postern.operating.status import actions as status
from chalicelib.postern.operating.status.queries import Status
from tests.integration.world import World, fails_for, work

MINUTE, HOUR, DAY, WEEK = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
# An hour's beginning, in the past.
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 2 * HOUR


@dataclass
class Ear:
    world: World
    book: Ledger
    sources: list[str]
    now: datetime = NOW
    lines: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    @property
    def hours(self) -> Hours:
        return Hours(self.world.database())

    def come(self, source: str, *times: datetime) -> None:
        """Rows of these times, without the detour of processing them."""
        self.world.query(
            "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at,"
            " headers, body) SELECT id, %s, 't', id::text, 'processed', 1, at, at, '{}', ''"
            " FROM unnest(%s::uuid[], %s::timestamptz[]) AS came (id, at)",
            source,
            [str(new_event_id(at)) for at in times],
            list(times),
        )

    def every(self, minutes: int, since: datetime, until: datetime) -> list[datetime]:
        return [since + n * MINUTE for n in range(0, int((until - since) / MINUTE), minutes)]

    def listen(self) -> list[str]:
        """The sources that are quiet."""
        watch = Watch(self.hours, lambda: self.sources, lambda: self.now, self.log)
        for _ in range(10):  # as often as it takes to learn nine weeks
            self.lines.clear()
            found = watch.listen()["quiet_sources"]
        assert len(self.lines) == found
        return sorted(line["source"] for _, line in self.lines)

    def log(
        self, name: str, /, *, failed: bool = False, metrics: Mapping[str, float] | None = None, **fields: Any
    ) -> None:
        self.lines.append((name, {**fields, **(metrics or {})}))

    def status(self) -> dict[str, Any]:
        actions = status.views(
            Status(self.world.database()), self.book, self.hours, lambda: self.sources, lambda: self.now
        )
        return Operator(actions, {}).perform({"action": "status"})


@pytest.fixture
def ear(world: World) -> Ear:
    world.query(
        "UPDATE postern.bookkeeping SET ledger_begins = %s, ledger_to = %s, hours_to = %s",
        NOW - 9 * WEEK,
        NOW,
        NOW - 9 * WEEK,
    )
    return Ear(world, Ledger(world.database()), ["shop", "other"])


def test_hours_are_counted_with_their_active_minutes_and_longest_gap(ear: Ear) -> None:
    hour = NOW - 5 * HOUR
    ear.come("shop", hour, hour + timedelta(seconds=20), hour + 10 * MINUTE, hour + 2 * HOUR + 15 * MINUTE)
    ear.listen()
    assert ear.world.query(
        "SELECT source, hour, events::int, active_minutes, longest_gap FROM postern.source_hours ORDER BY hour"
    ) == [("shop", hour, 3, 2, 10), ("shop", hour + 2 * HOUR, 1, 1, 125)]


def test_a_gap_is_measured_from_what_was_counted_before(ear: Ear) -> None:
    ear.come("shop", NOW - 30 * HOUR)
    ear.listen()
    ear.come("shop", NOW + 5 * MINUTE)
    ear.now += HOUR
    ear.listen()
    gaps = ear.world.query("SELECT longest_gap FROM postern.source_hours ORDER BY hour")
    assert gaps == [(None,), (30 * 60 + 5,)]


def test_a_source_that_stops_is_reported_while_it_lasts(ear: Ear) -> None:
    ear.come("shop", *ear.every(4, NOW - 2 * WEEK, NOW))
    ear.come("other", *ear.every(4, NOW - 2 * WEEK, NOW + 2 * HOUR))
    ear.now = NOW + 20 * MINUTE
    assert ear.listen() == []
    ear.now = NOW + 80 * MINUTE
    assert ear.listen() == ["shop"]
    [(_, line)] = ear.lines
    assert (line["quiet_sources"], line["quiet_minutes"]) == (1, 84)
    assert 17 < line["expected"] < 24
    ear.come("shop", NOW + 79 * MINUTE)
    assert ear.listen() == []


def test_a_source_whose_events_wait_in_the_queue_is_not_quiet(ear: Ear) -> None:
    ear.come("shop", *ear.every(4, NOW - 2 * WEEK, NOW))
    ear.now = NOW + 2 * HOUR
    assert ear.listen() == ["shop"]
    ear.book.enter(NOW, ear.now, {("shop", ear.now - MINUTE): 1})
    assert ear.listen() == []


def test_a_source_that_was_removed_is_not_reported(ear: Ear) -> None:
    ear.come("shop", *ear.every(4, NOW - 2 * WEEK, NOW))
    ear.now = NOW + 2 * HOUR
    ear.sources = ["other"]
    assert ear.listen() == []


def test_what_is_older_than_nine_weeks_is_let_go(ear: Ear) -> None:
    ear.come("shop", NOW - 8 * WEEK)
    ear.listen()
    ear.now += 2 * WEEK
    ear.listen()
    assert ear.world.query("SELECT count(*) FROM postern.source_hours") == [(0,)]


def checked(ear: Ear, *, missing: int = 0, waiting: int = 0) -> None:
    ear.book.note_check(at=ear.now, missing=missing, waiting=waiting)


def test_the_status_of_an_inbox_that_does_well(ear: Ear) -> None:
    ear.come("shop", NOW - 3 * HOUR, NOW - 30 * MINUTE, NOW - MINUTE)
    checked(ear)
    found = ear.status()
    assert found["well"] is True
    assert found["sources"] == [
        {"source": "other", "last_seen": None, "hour": 0, "day": 0, "quiet": None},
        {
            "source": "shop",
            "last_seen": (NOW - MINUTE).isoformat().replace("+00:00", "Z"),
            "hour": 2,
            "day": 3,
            "quiet": None,
        },
    ]
    assert (found["failed"], found["dead"], found["oldest_failed"]) == (0, 0, None)
    assert (found["ledger"]["balanced"], found["ledger"]["stale"]) == (True, False)


def test_the_status_says_who_is_quiet(ear: Ear) -> None:
    ear.come("shop", *ear.every(4, NOW - 2 * WEEK, NOW))
    ear.listen()
    ear.now = NOW + 80 * MINUTE
    checked(ear)
    found = ear.status()
    assert found["well"] is False
    assert found["sources"][1]["quiet"]["minutes"] == 84


def test_a_failed_event_is_shown_and_a_dead_one_needs_a_person(ear: Ear) -> None:
    at = NOW - HOUR
    failing = work(id=new_event_id(at), received_at=at)
    processor = ear.world.processor(fails_for(1))
    processor.process([failing])
    checked(ear)
    found = ear.status()
    assert (found["failed"], found["dead"], found["well"]) == (1, 0, True)
    assert found["oldest_failed"]["id"] == str(failing.event.id)
    assert "ValueError" in found["oldest_failed"]["error"]
    processor.process([failing])
    processor.process([failing])
    found = ear.status()
    assert (found["failed"], found["dead"], found["well"]) == (0, 1, False)


def test_a_ledger_that_does_not_balance_or_is_not_kept_needs_a_person(ear: Ear) -> None:
    checked(ear, missing=5, waiting=2)
    found = ear.status()
    assert (found["well"], found["ledger"]["missing"], found["ledger"]["balanced"]) == (False, 3, False)
    checked(ear)
    ear.now += HOUR
    assert (ear.status()["well"], ear.status()["ledger"]["stale"]) == (False, True)
