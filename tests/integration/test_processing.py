"""Processing batches on PostgreSQL: one row an event, duplicates, retries, and payloads that jsonb cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg2
import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.errors import StatementFailed
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.storage.queries import Storage
from chalicelib.postern.processing.attempts import Result, Status, Work
from chalicelib.postern.processing.settling import Kind, Outcome
from tests.integration.world import World, effect, fails_for, now, numbered, work

Process = Callable[..., dict[UUID, Outcome]]

# What `work()` makes has an n of 1.
fail = fails_for(1)


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


# One event, one row


def test_an_event_is_one_row_with_its_exact_bytes(process: Process, world: World) -> None:
    body = b' {"b": 1.10, "a": "\xc3\xa9", "b": 2}\r\n'
    item = work("order-1", body, source="acme", type="order.created")
    assert process([item]) == {item.event.id: Outcome(Kind.PROCESSED, attempts=1)}
    [row] = world.query(
        "SELECT id::text, source, type, dedup_key, status, attempts, error, received_at, headers, payload::text, body"
        " FROM postern.events"
    )
    assert row[:-1] == (
        str(item.event.id),
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


def test_the_requests_id_is_in_the_row_and_the_handlers_have_it(process: Process, world: World) -> None:
    seen: list[str | None] = []
    batch = [work(request_id="c6af9ac6-7b61"), work()]
    process(batch, lambda event, db: seen.append(event.request_id))
    assert seen == ["c6af9ac6-7b61", None]
    found = [Events(world.database()).event(item.event.id) for item in batch]
    assert [event and event["request_id"] for event in found] == ["c6af9ac6-7b61", None]


def test_a_number_keeps_every_digit_in_its_payload(process: Process, world: World) -> None:
    process([work(body=b'{"amount": 0.10, "id": 12345678901234567890123, "long": ' + b"9" * 5000 + b"}")])
    assert world.query(
        "SELECT payload ->> 'amount', payload ->> 'id', length(payload ->> 'long') FROM postern.events"
    ) == [("0.10", "12345678901234567890123", 5000)]


@pytest.mark.parametrize("text", ["\\N", "a\tb", "a\nb\rc", "\\x41", "\\.", "\\\\", "a\\", "\x01\x7f"])
def test_what_copy_takes_for_a_sign_of_its_own_is_stored_as_it_is(process: Process, world: World, text: str) -> None:
    body = text.encode()
    process([work(text, body, type=text, headers={"x-said": text}, format="bytes"), work("mate")])
    stored = "SELECT dedup_key, type, headers ->> 'x-said', body FROM postern.events WHERE dedup_key <> 'mate'"
    [(key, type, said, kept)] = world.query(stored)
    assert (key, type, said, bytes(kept)) == (text, text, text, body)
    assert world.rows() == [("processed", 1)] * 2


def test_a_first_try_that_succeeds_is_told_by_its_event_alone(process: Process, world: World) -> None:
    process(numbered(1, 2), fails_for(2))
    assert world.query("SELECT outcome FROM postern.attempts") == [("failed",)]
    tries = (
        "SELECT number, trigger, outcome, started_at IS NOT NULL, duration_ms >= 0 FROM postern.tries ORDER BY outcome"
    )
    assert world.query(tries) == [(1, "first", "failed", True, True), (1, "first", "processed", True, True)]


def test_an_empty_batch_has_no_outcomes(process: Process) -> None:
    assert process([]) == {}


def test_a_batch_of_a_thousand_is_written(process: Process, world: World) -> None:
    batch = numbered(*range(1000))
    assert set(kinds(process(batch), batch)) == {Kind.PROCESSED}
    assert world.query("SELECT count(*), count(DISTINCT payload -> 'n') FROM postern.events") == [(1000, 1000)]


# The same event again


def test_a_duplicate_in_a_later_batch_is_recorded_and_changes_nothing(process: Process, world: World) -> None:
    first, again = work("evt_1", b'{"n": 1}'), work("evt_1", b'{"n": 2}')
    process([first], effect)
    assert process([again], effect) == {again.event.id: Outcome(Kind.DUPLICATE)}
    assert world.query("SELECT id::text, payload FROM postern.events") == [(str(first.event.id), {"n": 1})]
    assert world.query("SELECT id::text, event_id::text, source, received_at FROM postern.duplicates") == [
        (str(again.event.id), str(first.event.id), "shop", again.event.received_at)
    ]
    assert having_effects(world) == ids(first)


def test_a_duplicate_that_sqs_brings_twice_is_recorded_once(process: Process, world: World) -> None:
    process([work("evt_1")])
    again = work("evt_1")
    assert [kinds(process([again]), [again]) for _ in range(2)] == [[Kind.DUPLICATE]] * 2
    assert world.query("SELECT id::text FROM postern.duplicates") == [(str(again.event.id),)]


def test_of_twins_in_one_batch_one_is_the_event(process: Process, world: World) -> None:
    batch = [work("evt_1"), work("evt_2"), work("evt_1"), work("evt_1")]
    outcomes = process(batch, effect)
    assert sorted(kinds(outcomes, batch)) == [Kind.DUPLICATE, Kind.DUPLICATE, Kind.PROCESSED, Kind.PROCESSED]
    stored = sorted(row[0] for row in world.query("SELECT id::text FROM postern.events"))
    assert stored == ids(*(item for item in batch if outcomes[item.event.id].kind is Kind.PROCESSED))
    assert having_effects(world) == stored
    assert world.query("SELECT count(*) FROM postern.duplicates") == [(2,)]


def test_the_same_key_from_another_source_is_another_event(process: Process) -> None:
    batch = [work("1", source="shop"), work("1", source="bank")]
    assert kinds(process(batch), batch) == [Kind.PROCESSED, Kind.PROCESSED]


def test_two_copies_of_a_message_in_one_batch_are_one_event(process: Process, world: World) -> None:
    item = work()
    assert process([item, item], effect) == {item.event.id: Outcome(Kind.PROCESSED, attempts=1)}
    assert having_effects(world) == ids(item)
    assert world.query("SELECT count(*) FROM postern.duplicates") == [(0,)]


def test_a_redelivery_after_success_changes_nothing(process: Process, world: World) -> None:
    item = work()
    process([item], effect)
    before = world.query("SELECT * FROM postern.events")
    assert process([item], effect) == {item.event.id: Outcome(Kind.ALREADY_PROCESSED)}
    assert world.query("SELECT * FROM postern.events") == before
    assert having_effects(world) == ids(item)


# Failing, and coming again


def test_a_failing_handler_fails_its_own_event_and_keeps_nothing_of_it(process: Process, world: World) -> None:
    def fail_on_odd(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] % 2:
            raise ValueError("the crate\nis empty")

    batch = numbered(*range(10))
    outcomes = process(batch, fail_on_odd)
    assert {outcomes[item.event.id] for item in batch[::2]} == {Outcome(Kind.PROCESSED, 1)}
    assert {outcomes[item.event.id] for item in batch[1::2]} == {Outcome(Kind.RETRY, 1, "ValueError: the crate")}
    assert having_effects(world) == ids(*batch[::2])
    rows = world.query("SELECT attempts, processed_at, error FROM postern.events WHERE status = 'failed'")
    assert len(rows) == 5
    for attempts, processed_at, error in rows:
        assert (attempts, processed_at) == (1, None)
        assert error.startswith("ValueError: the crate\n\nTraceback (most recent call last):\n")
        assert "test_processing.py" in error
        assert "in fail_on_odd" in error
        assert "chalicelib" not in error


def test_an_event_that_failed_and_then_succeeds_has_its_effect_once(process: Process, world: World) -> None:
    attempts: list[int] = []

    def succeed_at_last(event: Event, db: Any) -> None:
        attempts.append(event.attempt)
        effect(event, db)
        if event.attempt < 3:
            raise ValueError("not yet")

    item = work()
    results = [process([item], succeed_at_last)[item.event.id].kind for _ in range(4)]
    assert results == [Kind.RETRY, Kind.RETRY, Kind.PROCESSED, Kind.ALREADY_PROCESSED]
    assert attempts == [1, 2, 3]
    assert world.query("SELECT status, attempts, error, processed_at IS NOT NULL FROM postern.events") == [
        ("processed", 3, None, True)
    ]
    assert having_effects(world) == ids(item)


def test_an_event_is_dead_after_its_last_attempt(process: Process, world: World) -> None:
    item = work()
    results = [process([item], fail)[item.event.id] for _ in range(3)]
    assert [(r.kind, r.attempts) for r in results] == [(Kind.RETRY, 1), (Kind.RETRY, 2), (Kind.DEAD, 3)]
    assert world.query("SELECT status, attempts, split_part(error, E'\\n', 1) FROM postern.events") == [
        ("dead", 3, "ValueError: 1 is poisoned")
    ]
    assert having_effects(world) == []


def test_a_dead_event_whose_message_was_not_moved_is_dead_again_without_an_attempt(
    process: Process, world: World
) -> None:
    """The function died between the commit and the move."""
    item = work()
    for _ in range(3):
        process([item], fail)
    before = world.query("SELECT * FROM postern.events")
    outcome = process([item], effect)[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.DEAD, 3)
    assert world.query("SELECT * FROM postern.events") == before
    assert having_effects(world) == []


def test_a_redriven_event_runs_again_with_a_fresh_budget(process: Process, world: World) -> None:
    item = work()
    for _ in range(3):
        process([item], fail)
    redriven = Work(item.event, item.body, attempts_before=3)
    results = [process([redriven], fail)[item.event.id] for _ in range(3)]
    assert [(r.kind, r.attempts) for r in results] == [(Kind.RETRY, 4), (Kind.RETRY, 5), (Kind.DEAD, 6)]
    once_more = Work(item.event, item.body, attempts_before=6)
    assert process([once_more], effect)[item.event.id].kind is Kind.PROCESSED
    assert world.query("SELECT status, attempts, error FROM postern.events") == [("processed", 7, None)]
    assert having_effects(world) == ids(item)


def test_a_duplicate_of_a_failed_event_is_no_attempt_at_it(process: Process, world: World) -> None:
    process([work("evt_1")], fail)
    again = work("evt_1")
    assert kinds(process([again], fail), [again]) == [Kind.DUPLICATE]
    assert world.rows() == [("failed", 1)]


def test_new_events_retries_and_duplicates_share_a_batch(process: Process, world: World) -> None:
    failed, stored = work("failed"), work("stored")
    process([failed], fail)
    process([stored], effect)
    batch = [work("new"), failed, stored, work("stored"), work("failed")]
    assert kinds(process(batch, effect), batch) == [
        Kind.PROCESSED,
        Kind.PROCESSED,
        Kind.ALREADY_PROCESSED,
        Kind.DUPLICATE,
        Kind.DUPLICATE,
    ]
    assert having_effects(world) == ids(batch[0], failed, stored)
    assert {status for status, _ in world.rows()} == {"processed"}


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
        (b"[" * 512 + b"]" * 512, ...),
    ],
    ids=["nul", "lone-surrogates", "surrogate-pair", "escaped-backslash", "exponent", "digits", "bom", "nested"],
)
def test_what_jsonb_cannot_hold_is_stored_all_the_same_and_hurts_nobody(
    process: Process, world: World, body: bytes, payload: Any
) -> None:
    odd = work(body=body)
    batch = [work(), odd, work()]
    assert kinds(process(batch, effect), batch) == [Kind.PROCESSED] * 3
    assert having_effects(world) == ids(*batch)
    [(status, attempts, stored, kept)] = world.query(
        "SELECT status, attempts, payload, body FROM postern.events WHERE id = %s", str(odd.event.id)
    )
    assert (status, attempts, bytes(kept)) == ("processed", 1, body)
    assert stored == payload or payload is ...
    assert world.query("SELECT payload FROM postern.events WHERE id <> %s", str(odd.event.id)) == [({"n": 1},)] * 2


def test_handlers_see_the_senders_own_values_where_jsonb_has_none(process: Process) -> None:
    seen: set[Any] = set()
    process(
        [work(body=rb'{"v": "a\u0000\ud800"}'), work(body=b'{"v": 1e999999}')],
        lambda event, db: seen.add(event.payload["v"]),
    )
    assert seen == {"a\0\ud800", float("inf")}


def test_an_error_that_quotes_what_text_cannot_hold_is_stored(process: Process, world: World) -> None:
    def quote(event: Event, db: Any) -> None:
        raise ValueError(event.payload["v"])

    process([work(body=rb'{"v": "a\u0000b\ud800c"}')], quote)
    assert world.query("SELECT split_part(error, E'\\n', 1) FROM postern.events") == [("ValueError: a\ufffdb?c",)]


def test_a_failed_event_with_such_a_payload_is_charged_one_attempt_a_try(process: Process, world: World) -> None:
    item = work(body=b'{"n": 1, "number": 1e999999}')
    assert [process([item], fail)[item.event.id].attempts for _ in range(2)] == [1, 2]
    assert world.query("SELECT status, attempts, payload FROM postern.events") == [("failed", 2, None)]


# Partitions


def test_an_event_without_a_partition_is_stored_and_moves_when_there_is_one(process: Process, world: World) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    partition = f"events_{tomorrow:%Y%m%d}"
    world.query(f"DROP TABLE postern.{partition}")
    storage = Storage(world.database())

    def place(item: Work) -> list[tuple[str]]:
        return world.query(
            "SELECT c.relname::text FROM postern.events e JOIN pg_class c ON c.oid = e.tableoid WHERE e.id = %s",
            str(item.event.id),
        )

    item = work(id=new_event_id(tomorrow), received_at=tomorrow, request_id="r-1")
    assert kinds(process([item]), [item]) == [Kind.PROCESSED]
    assert place(item) == [("events_default",)]

    assert storage.make_partition("events", tomorrow.date()) == 1
    assert place(item) == [(partition,)]
    assert storage.make_partition("events", tomorrow.date()) is None

    found = Events(world.database()).event(item.event.id)
    assert found is not None
    assert (found["body"], found["request_id"]) == (item.body, "r-1")
    assert kinds(process([item]), [item]) == [Kind.ALREADY_PROCESSED]
    later = received(tomorrow)
    process([later])
    assert place(later) == [(partition,)]


@pytest.mark.parametrize("days", [-400, 400])
def test_an_event_of_another_year_is_stored(process: Process, world: World, days: int) -> None:
    item = received(datetime.now(UTC) + timedelta(days=days))
    assert kinds(process([item]), [item]) == [Kind.PROCESSED]
    assert world.query("SELECT id::text FROM postern.events_default") == [(str(item.event.id),)]


def test_a_lookup_by_id_reads_one_partition_of_many(process: Process, world: World) -> None:
    [(partitions,)] = world.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'postern.events'::regclass")
    assert partitions == 16  # today, fourteen days and the default
    item = work()
    process([item])
    plan = str(world.query("EXPLAIN SELECT * FROM postern.events WHERE id = %s", str(item.event.id)))
    assert plan.count("on events_") == 1


# What the table itself guards


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'lost', error = 'x', processed_at = NULL", "events_status_is_known"),
        ("processed_at = NULL", "events_processed_has_a_time"),
        ("status = 'failed', error = 'x'", "events_processed_has_a_time"),
        ("error = 'x'", "events_unprocessed_has_an_error"),
        ("status = 'dead', processed_at = NULL", "events_unprocessed_has_an_error"),
        ("attempts = 0", "events_attempts_count_from_one"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_by_name(
    process: Process, world: World, change: str, constraint: str
) -> None:
    process([work()])
    with pytest.raises(psycopg2.errors.CheckViolation) as caught:
        world.query(f"UPDATE postern.events SET {change}")
    assert caught.value.diag.constraint_name == constraint


# Code that is there before its migration


@pytest.mark.parametrize(
    ("undone", "done"),
    [
        ("ALTER TABLE postern.events DROP COLUMN request_id", "ALTER TABLE postern.events ADD COLUMN request_id text"),
        ("ALTER TABLE postern.events RENAME TO away", "ALTER TABLE postern.away RENAME TO events"),
    ],
    ids=["undefined-column", "undefined-table"],
)
@pytest.mark.parametrize("functions", [(), (effect,), (fail,)], ids=["no handler", "handled", "poisoned"])
def test_an_event_is_not_charged_for_a_migration_that_is_still_to_come(
    process: Process, world: World, undone: str, done: str, functions: tuple[Any, ...]
) -> None:
    """A deployment updates the functions first and migrates then."""
    batch = numbered(1, 2)
    world.query(undone)
    for _ in range(4):  # more often than there are attempts
        outcomes = process(batch, *functions)
        assert {(o.kind, o.attempts, o.reason.partition(":")[0]) for o in outcomes.values()} == {
            (Kind.RETRY, 0, "database")
        }
    world.query(done)
    assert (world.rows(), world.effects()) == ([], 0)
    process(batch, *functions)
    assert sorted(attempts for _, attempts in world.rows()) == [1, 1]


@pytest.mark.parametrize("table", ["seals", "open_tries"])
@pytest.mark.parametrize("functions", [(effect,), (fail,)], ids=["handled", "poisoned"])
def test_a_table_that_is_still_to_come_costs_no_event_an_attempt(
    process: Process, world: World, table: str, functions: tuple[Any, ...]
) -> None:
    batch = numbered(1, 2)
    world.query(f"ALTER TABLE postern.{table} RENAME TO away")
    for receives in (1, 2, 3, 4):
        outcomes = process([replace(item, receives=receives) for item in batch], *functions)
        assert {(o.kind, o.attempts) for o in outcomes.values()} <= {
            (Kind.RETRY, 0),
            (Kind.PROCESSED, 1),
            (Kind.ALREADY_PROCESSED, 0),
        }
    world.query(f"ALTER TABLE postern.away RENAME TO {table}")
    process(batch, *functions)
    assert [attempts for _, attempts in world.rows()] == [1, 1]


def test_a_verdict_on_a_row_that_somebody_else_has_changed_is_not_written(world: World) -> None:
    """Its lock keeps others away; should that ever fail, the number of attempts tells."""
    item = work()
    world.processor(fail).process([item])
    store = EventStore(world.database())
    verdict = Result(Status.PROCESSED, 2, processed_at=now())
    with pytest.raises(StatementFailed, match="changed by something else"), store.transaction() as tx:
        tx.update([(item.event.id, verdict, 7)])
    assert world.rows() == [("failed", 1)]
