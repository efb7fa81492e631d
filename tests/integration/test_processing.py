"""Processing batches on PostgreSQL: one row an event, retries, duplicates, and payloads that jsonb cannot hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg2
import pytest

from chalicelib.adapters.reports import Reports
from chalicelib.deliveries import Event, new_event_id
from chalicelib.process import Kind, Outcome, Work
from tests.integration.world import World, effect, fails_for, numbered, work

Process = Callable[..., dict[UUID, Outcome]]


@pytest.fixture
def process(world: World) -> Process:
    """Processes a batch with these functions as the handlers of every event, always on the same connection."""
    database = world.database()
    return lambda batch, *functions: world.processor(*functions, database=database).process(batch)


def kinds(outcomes: dict[UUID, Outcome], batch: list[Work]) -> list[Kind]:
    return [outcomes[item.event.id].kind for item in batch]


def having_effects(world: World) -> list[str]:
    """The ids of the events whose handlers left something, each as often as they did."""
    return [row[0] for row in world.query("SELECT event::text FROM effects ORDER BY event")]


def ids(*works: Work) -> list[str]:
    return sorted(str(item.event.id) for item in works)


def received(at: datetime) -> Work:
    return work(id=new_event_id(at), received_at=at)


fail = fails_for(1)


# One event, one row


def test_an_event_is_one_row_with_its_exact_bytes(process: Process, query: Query) -> None:
    body = b' {"b": 1.10, "a": "\xc3\xa9", "b": 2}\r\n'
    item = work(body=body, source="acme", type="order.created", key="order-1")
    assert process([item]) == {item.event.id: Outcome(Kind.PROCESSED, attempts=1)}
    [row] = query(
        "SELECT id, source, type, dedup_key, status, attempts, error, received_at, headers, payload::text, body"
        " FROM postern.events"
    )
    assert row[:-1] == (
        item.event.id,
        "acme",
        "order.created",
        "order-1",
        "processed",
        1,
        None,
        item.event.received_at,
        {"content-type": "application/json"},
        '{"a": "é", "b": 2}',
    )
    assert bytes(row[-1]) == body


def test_a_number_keeps_every_digit_in_its_payload(process: Process, query: Query) -> None:
    process([work(body=b'{"amount": 0.10, "id": 12345678901234567890123, "long": ' + b"9" * 400 + b"}")])
    [[amount, id, digits]] = query(
        "SELECT payload->>'amount', payload->>'id', length(payload->>'long') FROM postern.events"
    )
    assert (amount, id, digits) == ("0.10", "12345678901234567890123", 400)


def test_an_empty_batch_is_no_transaction(process: Process) -> None:
    assert process([]) == {}


def test_a_batch_of_a_thousand_is_written(process: Process, query: Query) -> None:
    batch = [work({"n": n}) for n in range(1000)]
    assert set(kinds(process(batch), batch)) == {Kind.PROCESSED}
    assert query("SELECT count(*), count(DISTINCT payload->'n') FROM postern.events") == [(1000, 1000)]


# The same event again


def test_a_duplicate_in_a_later_batch_is_recorded_and_changes_nothing(
    process: Process, query: Query, effects: Effects
) -> None:
    first = work({"try": 1}, key="evt_1")
    again = work({"try": 2}, key="evt_1")
    process([first], leave_effect)
    assert process([again], leave_effect) == {again.event.id: Outcome(Kind.DUPLICATE)}
    assert query("SELECT id, payload FROM postern.events") == [(first.event.id, {"try": 1})]
    assert query("SELECT id, event_id, source, received_at FROM postern.duplicates") == [
        (again.event.id, first.event.id, "acme", again.event.received_at)
    ]
    assert effects() == [first.event.id]


def test_a_duplicate_that_sqs_brings_twice_is_recorded_once(process: Process, query: Query) -> None:
    process([work(key="evt_1")])
    again = work(key="evt_1")
    process([again])
    assert kinds(process([again]), [again]) == [Kind.DUPLICATE]
    assert query("SELECT id FROM postern.duplicates") == [(again.event.id,)]


def test_of_twins_in_one_batch_one_is_the_event(process: Process, query: Query, effects: Effects) -> None:
    batch = [work(key="evt_1"), work(key="evt_2"), work(key="evt_1"), work(key="evt_1")]
    outcomes = process(batch, leave_effect)
    assert sorted(kinds(outcomes, batch)) == [Kind.DUPLICATE, Kind.DUPLICATE, Kind.PROCESSED, Kind.PROCESSED]
    stored = {row[0] for row in query("SELECT id FROM postern.events")}
    assert stored == {id for id, outcome in outcomes.items() if outcome.kind is Kind.PROCESSED}
    assert set(effects()) == stored
    assert len(effects()) == 2
    assert query("SELECT count(*) FROM postern.duplicates") == [(2,)]


def test_the_same_key_from_another_source_is_another_event(process: Process) -> None:
    batch = [work(key="1", source="acme"), work(key="1", source="globex")]
    assert kinds(process(batch), batch) == [Kind.PROCESSED, Kind.PROCESSED]


def test_two_copies_of_a_message_in_one_batch_are_one_event(process: Process, query: Query, effects: Effects) -> None:
    item = work()
    assert process([item, item], leave_effect) == {item.event.id: Outcome(Kind.PROCESSED, attempts=1)}
    assert effects() == [item.event.id]
    assert query("SELECT count(*) FROM postern.duplicates") == [(0,)]


def test_a_redelivery_after_success_changes_nothing(process: Process, query: Query, effects: Effects) -> None:
    item = work()
    process([item], leave_effect)
    before = query("SELECT * FROM postern.events")
    assert process([item], leave_effect) == {item.event.id: Outcome(Kind.ALREADY_PROCESSED)}
    assert query("SELECT * FROM postern.events") == before
    assert effects() == [item.event.id]


# Failing, and coming again


def test_a_failing_handler_fails_its_own_event_and_keeps_nothing_of_it(
    process: Process, query: Query, effects: Effects
) -> None:
    def fail_on_odd(event: Event, db: Any) -> None:
        leave_effect(event, db)
        if event.payload["n"] % 2:
            raise ValueError("the crate\nis empty")

    batch = [work({"n": n}) for n in range(10)]
    outcomes = process(batch, fail_on_odd)
    even = [item for item in batch[::2]]
    assert {outcomes[item.event.id] for item in even} == {Outcome(Kind.PROCESSED, 1)}
    assert {outcomes[item.event.id] for item in batch[1::2]} == {Outcome(Kind.RETRY, 1, "ValueError: the crate")}
    assert effects() == sorted(item.event.id for item in even)
    rows = query("SELECT attempts, processed_at, error FROM postern.events WHERE status = 'failed'")
    assert len(rows) == 5
    for attempts, processed_at, error in rows:
        assert (attempts, processed_at) == (1, None)
        assert error.startswith("ValueError: the crate\n\nTraceback (most recent call last):\n")
        assert "test_processing.py" in error
        assert "in fail_on_odd" in error
        assert "chalicelib" not in error


def test_an_event_that_has_failed_and_then_succeeds_has_its_effect_once(
    process: Process, query: Query, effects: Effects
) -> None:
    attempts: list[int] = []

    def fail_twice(event: Event, db: Any) -> None:
        attempts.append(event.attempt)
        leave_effect(event, db)
        if event.attempt < 3:
            raise ValueError("not yet")

    item = work()
    results = [process([item], fail_twice)[item.event.id] for _ in range(4)]
    assert [result.kind for result in results] == [Kind.RETRY, Kind.RETRY, Kind.PROCESSED, Kind.ALREADY_PROCESSED]
    assert attempts == [1, 2, 3]
    assert query("SELECT status, attempts, error, processed_at IS NOT NULL FROM postern.events") == [
        ("processed", 3, None, True)
    ]
    assert effects() == [item.event.id]


def test_an_event_is_dead_after_its_last_attempt(process: Process, query: Query, effects: Effects) -> None:
    item = work()
    results = [process([item], leave_effect_then_fail)[item.event.id] for _ in range(3)]
    assert [(result.kind, result.attempts) for result in results] == [
        (Kind.RETRY, 1),
        (Kind.RETRY, 2),
        (Kind.DEAD, 3),
    ]
    assert query("SELECT status, attempts, split_part(error, E'\\n', 1) FROM postern.events") == [
        ("dead", 3, "ValueError: the crate is empty")
    ]
    assert effects() == []


def test_a_dead_event_whose_message_was_not_moved_is_dead_again_without_an_attempt(
    process: Process, query: Query
) -> None:
    """The function died between the commit and the move."""
    item = work()
    for _ in range(3):
        process([item], leave_effect_then_fail)
    before = query("SELECT * FROM postern.events")
    outcome = process([item], leave_effect)[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.DEAD, 3)
    assert query("SELECT * FROM postern.events") == before


def test_a_redriven_event_runs_again_with_a_fresh_budget(process: Process, query: Query, effects: Effects) -> None:
    item = work()
    for _ in range(3):
        process([item], leave_effect_then_fail)
    redriven = Work(item.event, item.body, attempts_before=3)
    results = [process([redriven], leave_effect_then_fail)[item.event.id] for _ in range(3)]
    assert [(result.kind, result.attempts) for result in results] == [
        (Kind.RETRY, 4),
        (Kind.RETRY, 5),
        (Kind.DEAD, 6),
    ]
    again = Work(item.event, item.body, attempts_before=6)
    assert process([again], leave_effect)[item.event.id].kind is Kind.PROCESSED
    assert query("SELECT status, attempts, error FROM postern.events") == [("processed", 7, None)]
    assert effects() == [item.event.id]


def test_a_duplicate_of_a_failed_event_is_a_duplicate(process: Process, query: Query) -> None:
    process([work(key="evt_1")], leave_effect_then_fail)
    again = work(key="evt_1")
    assert kinds(process([again], leave_effect_then_fail), [again]) == [Kind.DUPLICATE]
    assert query("SELECT attempts FROM postern.events") == [(1,)]


def test_new_events_retries_and_duplicates_share_a_batch(process: Process, query: Query, effects: Effects) -> None:
    failed, stored = work(key="failed"), work(key="stored")
    process([failed], leave_effect_then_fail)
    process([stored], leave_effect)
    batch = [work(key="new"), failed, stored, work(key="stored"), work(key="failed")]
    assert kinds(process(batch, leave_effect), batch) == [
        Kind.PROCESSED,
        Kind.PROCESSED,
        Kind.ALREADY_PROCESSED,
        Kind.DUPLICATE,
        Kind.DUPLICATE,
    ]
    assert effects() == sorted([batch[0].event.id, failed.event.id, stored.event.id])
    assert query("SELECT DISTINCT status FROM postern.events") == [("processed",)]


# Payloads that jsonb cannot hold


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (rb'{"text": "a\u0000b"}', {"text": "a\ufffdb"}),
        (rb'{"text": "\ud800", "\udfff": 1}', {"text": "\ufffd", "\ufffd": 1}),
        (rb'{"text": "\ud83e\udd8a"}', {"text": "\U0001f98a"}),
        (rb'{"text": "\\u0000"}', {"text": "\\u0000"}),
        (b'{"number": 1e999999}', None),
        (b'{"number": ' + b"9" * 200_000 + b"}", None),
        (b'\xef\xbb\xbf{"bom": true}', {"bom": True}),
    ],
    ids=["nul", "lone-surrogates", "surrogate-pair", "escaped-backslash", "exponent", "200000-digits", "bom"],
)
def test_what_jsonb_cannot_hold_is_stored_all_the_same_and_hurts_nobody(
    process: Process, query: Query, effects: Effects, body: bytes, payload: Any
) -> None:
    odd = work(body=body)
    batch = [work({"mate": 1}), odd, work({"mate": 2})]
    assert kinds(process(batch, leave_effect), batch) == [Kind.PROCESSED] * 3
    assert effects() == sorted(item.event.id for item in batch)
    [[status, attempts, stored, kept]] = query(
        "SELECT status, attempts, payload, body FROM postern.events WHERE id = %s", odd.event.id
    )
    assert (status, attempts, stored, bytes(kept)) == ("processed", 1, payload, body)
    assert query("SELECT payload FROM postern.events WHERE id <> %s ORDER BY id", odd.event.id) == [
        ({"mate": 1},),
        ({"mate": 2},),
    ]


def test_handlers_see_the_senders_own_values_where_jsonb_has_none(process: Process, effects: Effects) -> None:
    seen: list[Any] = []
    batch = [work(body=rb'{"v": "a\u0000\ud800"}'), work(body=b'{"v": 1e999999}')]
    process(batch, lambda event, db: seen.append(event.payload["v"]) if event.payload["v"] not in seen else None)
    assert seen == ["a\0\ud800", float("inf")]


def test_an_error_that_quotes_what_text_cannot_hold_is_stored(process: Process, query: Query) -> None:
    def quote(event: Event, db: Any) -> None:
        raise ValueError(event.payload["v"])

    process([work(body=rb'{"v": "a\u0000b\ud800c"}')], quote)
    [[error]] = query("SELECT split_part(error, E'\\n', 1) FROM postern.events")
    assert error == "ValueError: a\ufffdb?c"


def test_a_failed_event_with_such_a_payload_is_charged_one_attempt_a_try(process: Process, query: Query) -> None:
    item = work(body=b'{"number": 1e999999}')
    assert process([item], leave_effect_then_fail)[item.event.id].attempts == 1
    assert query("SELECT status, attempts, payload FROM postern.events") == [("failed", 1, None)]


# Partitions


def test_an_event_without_a_partition_is_stored_and_moves_when_there_is_one(
    process: Process, database: Database, query: Query
) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    partition = f"events_{tomorrow:%Y%m%d}"
    query(f"DROP TABLE postern.{partition}")
    item = work(received_at=tomorrow)
    assert kinds(process([item]), [item]) == [Kind.PROCESSED]
    where = "SELECT tableoid::regclass::text FROM postern.events WHERE id = %s"
    assert query(where, item.event.id) == [("postern.events_default",)]

    assert Reports(database).ensure_partitions(14) == 1
    assert query(where, item.event.id) == [(f"postern.{partition}",)]
    assert Reports(database).ensure_partitions(14) == 0

    found = Reports(database).event(item.event.id)
    assert found is not None
    assert found["body"] == item.body
    assert kinds(process([item]), [item]) == [Kind.ALREADY_PROCESSED]
    after = work(received_at=tomorrow)
    process([after])
    assert query(where, after.event.id) == [(f"postern.{partition}",)]


@pytest.mark.parametrize("days", [-400, 400])
def test_an_event_of_another_year_is_stored(process: Process, query: Query, days: int) -> None:
    item = work(received_at=datetime.now(UTC) + timedelta(days=days))
    assert kinds(process([item]), [item]) == [Kind.PROCESSED]
    assert query("SELECT id FROM postern.events_default") == [(item.event.id,)]


def test_every_day_ahead_has_a_partition_and_a_lookup_by_id_reads_only_one(process: Process, query: Query) -> None:
    item = work()
    process([item])
    [[count]] = query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'postern.events'::regclass")
    assert count == 16  # today, fourteen days and the default
    plan = "\n".join(row[0] for row in query("EXPLAIN SELECT * FROM postern.events WHERE id = %s", item.event.id))
    assert f"events_{item.event.received_at:%Y%m%d}" in plan
    assert "Append" not in plan


# What the table itself guards


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'sleeping'", "events_status_is_known"),
        ("processed_at = NULL", "events_processed_has_a_time"),
        ("status = 'failed', error = 'x'", "events_processed_has_a_time"),
        ("error = 'x'", "events_unprocessed_has_an_error"),
        ("status = 'dead', processed_at = NULL", "events_unprocessed_has_an_error"),
        ("attempts = 0", "events_attempts_count_from_one"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_by_name(
    process: Process, query: Query, change: str, constraint: str
) -> None:
    process([work()])
    with pytest.raises(psycopg2.errors.CheckViolation) as caught:
        query(f"UPDATE postern.events SET {change}")
    assert caught.value.diag.constraint_name == constraint
