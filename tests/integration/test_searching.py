"""Searching stored events for what no index answers in their order: bounded in time, and it says how far it came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import StatementFailed
from chalicelib.postern.operating.events import queries
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.filters import EventFilters
from tests.integration.test_storage import upkeep
from tests.integration.world import World, now, work


def insert(world: World, at: datetime, n: int) -> None:
    id = str(new_event_id(at))
    world.query(
        "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, error, received_at, headers,"
        " payload, body) VALUES (%s, 'shop', 'order', %s, 'failed', %s, %s, %s, '{}', %s, '')",
        id, id, n, f"ValueError: {n} is poisoned", at, json.dumps({"n": n, "kind": n % 2}),
    )  # fmt: skip


@pytest.fixture
def scattered(world: World) -> World:
    """Events of the last minute, of hours and of months ago; the first is the newest."""
    begin = now()
    for n, hours in enumerate((0, 0.01, 0.24, 0.26, 1, 5, 23, 24, 48, 1000, 9000), start=1):
        insert(world, begin - timedelta(hours=hours), n)
    return world


def found(events: list[dict[str, Any]], world: World) -> list[int]:
    by_id = dict(world.query("SELECT id::text, (payload ->> 'n')::integer FROM postern.events"))
    return [by_id[str(event["id"])] for event in events]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"filters": {"contains": '{"kind": 1}'}}, [1, 3, 5, 7, 9, 11]),
        ({"filters": {"contains": '{"n": 10}'}}, [10]),
        ({"filters": {"contains": '{"n": 99}'}}, []),
        ({"filters": {}, "error": "IS POISONED"}, [*range(1, 12)]),
        ({"filters": {}, "attempts": 8}, [8, 9, 10, 11]),
        ({"filters": {"contains": '{"kind": 1}', "type": "other"}}, []),
        ({"filters": {"type": "ord*"}}, [*range(1, 12)]),
        ({"filters": {"type": "orde_*"}}, []),
        ({"filters": {"type": "order"}}, [*range(1, 12)]),
    ],
)
def test_a_search_finds_all_there_is_the_newest_first(scattered: World, asked: Any, expected: list[int]) -> None:
    answer = Events(scattered.database()).events(**asked, limit=50)
    assert (found(answer.events, scattered), answer.searched_to) == (expected, None)


def test_pages_of_a_search_follow_each_other_without_gaps(scattered: World) -> None:
    events, before, seen = Events(scattered.database()), None, list[int]()
    for _ in range(5):
        page = events.events({}, error="poisoned", before=before, limit=3).events
        seen += found(page, scattered)
        before = page[-1]["id"] if page else before
    assert seen == [*range(1, 12)]


def test_a_search_keeps_within_its_times(scattered: World) -> None:
    span = {"since": now() - timedelta(hours=25), "until": now() - timedelta(minutes=30)}
    answer = Events(scattered.database()).events(span, error="poisoned", limit=50)
    assert found(answer.events, scattered) == [5, 6, 7, 8]


def test_when_time_is_up_it_says_how_far_it_came_and_goes_on_from_there(scattered: World) -> None:
    span, events = {"since": now() - timedelta(hours=49)}, Events(scattered.database(), clock_of(2.0))
    before, seen, rounds = None, list[int](), 0
    while True:
        answer = events.events(span, error="poisoned", before=before, limit=50)
        seen += found(answer.events, scattered)
        before, rounds = answer.searched_to, rounds + 1
        if before is None:
            break
        assert rounds < 200
    assert seen == [*range(1, 10)]
    assert rounds > 1


def test_what_cannot_be_searched_at_all_is_said(scattered: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_PIECE_SECONDS", 0.1)
    scattered.query("ALTER TABLE postern.events RENAME TO heap")
    scattered.query("CREATE VIEW postern.events AS SELECT heap.* FROM postern.heap, pg_sleep(10)")
    with pytest.raises(StatementFailed) as failed:
        Events(scattered.database(), clock_of(9.0)).events({}, error="poisoned", limit=50)
    assert failed.value.passing


def test_payloads_of_days_that_have_ended_are_found_by_an_index(world: World) -> None:
    world.query("SELECT postern.make_partition('events', (now() AT TIME ZONE 'UTC')::date - 2)")
    insert(world, now() - timedelta(days=2), 1)
    assert upkeep(world).index_payloads() == {"payload_indexes_made": 1, "payload_indexes_not_made": None}
    assert upkeep(world).index_payloads()["payload_indexes_made"] == 0
    name = f"events_{now() - timedelta(days=2):%Y%m%d}"
    plan = world.query(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'postern' AND indexname = %s", f"{name}_payload"
    )
    assert "jsonb_path_ops" in plan[0][0]
    [index] = [each for each in upkeep(world).report()["indexes"] if each["name"] == "events_payload"]
    assert index["valid"]


def test_an_index_that_was_left_half_made_is_made_anew_another_day(world: World) -> None:
    world.query("SELECT postern.make_partition('events', (now() AT TIME ZONE 'UTC')::date - 2)")
    name = f"events_{now() - timedelta(days=2):%Y%m%d}"
    world.query(f"CREATE INDEX {name}_payload ON postern.{name} USING gin (payload jsonb_path_ops)")
    world.query(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'postern.{name}_payload'::regclass")
    assert upkeep(world, random=0.9).index_payloads()["payload_indexes_not_made"] == [name]
    assert any("events_payload" in warning for warning in upkeep(world).report()["warnings"])
    assert upkeep(world, random=0.0).index_payloads()["payload_indexes_made"] == 1


def clock_of(seconds: float) -> Any:
    """Each look at it is so much later."""
    ticks: Iterator[int] = count()
    return lambda: next(ticks) * seconds


def test_a_number_is_found_by_all_of_its_digits(world: World) -> None:
    body = b'{"total": 12345678901234567.89, "rate": 1.234567890123456789, "fee": 0.10}'
    stored = work(body=body)
    world.processor().process([stored])
    events = Events(world.database())
    for text in ('{"total": 12345678901234567.89}', '{"rate": 1.234567890123456789}', '{"fee": 0.1}', '{"fee": 0.100}'):
        for contains in (text, json.loads(text, parse_float=Decimal)):
            asked = EventFilters().load({"contains": contains})
            assert [each["id"] for each in events.events(asked, limit=5).events] == [stored.event.id]
    for other in ('{"total": 12345678901234567.88}', '{"rate": 1.2345678901234568}'):
        assert events.events(EventFilters().load({"contains": other}), limit=5).events == []
