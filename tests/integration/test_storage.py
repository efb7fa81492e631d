"""Partitions and retention: what is kept for how long, and that nobody who writes loses or waits for anything."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.operating.operator import Operator, presentable
from chalicelib.postern.operating.storage import actions as storage
from chalicelib.postern.operating.storage.actions import Retention, Upkeep
from chalicelib.postern.operating.storage.queries import Storage
from chalicelib.postern.processing.settling import Kind
from tests import commands
from tests.integration.world import World, effect, work
from tests.support import eventually

RETENTION = Retention.of(days=30, dedup_days=60, unresolved_days=90)

# Half of the limit, half a second for a slow machine's own doings.
BLOCKED_SECONDS = 2.5


def upkeep(world: World, *, in_days: float = 0, random: float = 0.4, store: Any = None) -> Upkeep:
    def now() -> datetime:
        return datetime.now(UTC) + timedelta(days=in_days)

    return Upkeep(store or Storage(world.database()), RETENTION, now, time.monotonic, lambda: random)


def run(upkeep: Upkeep) -> dict[str, Any]:
    return Operator({}, storage.duties(upkeep)).maintain()


def received(days_ago: float, key: str | None = None, **changes: Any) -> Any:
    at = datetime.now(UTC) - timedelta(days=days_ago)
    return work(key, id=new_event_id(at), received_at=at, **changes)


def days_of(item: Any, table: str = "events") -> str:
    return f"{table}_{item.event.received_at:%Y%m%d}"


def fails(event: Event, db: Any) -> None:
    raise ValueError("no")


def process(world: World, item: Any, *handlers: Callable[[Event, Any], Any]) -> Kind:
    """With a row for its try in any case: storage keeps both tables, and of a first try that succeeds there is none."""
    outcome = world.processor(*handlers).process([item])[item.event.id]
    world.query(
        "INSERT INTO postern.attempts SELECT * FROM postern.tries WHERE event_id = %s ON CONFLICT DO NOTHING",
        str(item.event.id),
    )
    return outcome.kind


def places(world: World, table: str = "events", key: str = "id") -> dict[str, str]:
    """Which partition each row is in."""
    return dict(
        world.query(
            f"SELECT {key}::text, relname::text FROM postern.{table} AS held JOIN pg_class c ON c.oid = held.tableoid"
        )
    )


def place(world: World, item: Any) -> str | None:
    return places(world).get(str(item.event.id))


# Homes for rows


def test_rows_of_past_days_move_home_and_those_beyond_retention_stay(world: World) -> None:
    today, recent, old = received(0), received(20), received(40)
    world.query(f"DROP TABLE postern.{days_of(today)}")
    for item in (today, recent, old):
        assert process(world, item) is Kind.PROCESSED
        assert place(world, item) == "events_default"
    done = upkeep(world).make_partitions()
    # Two events, and the attempt at the one of a past day: today's has its partition.
    assert (done["rows_moved_home"], done["partitions_not_made"]) == (3, None)
    assert [place(world, item) for item in (today, recent, old)] == [days_of(today), days_of(recent), "events_default"]
    assert upkeep(world).make_partitions()["partitions_made"] == 0
    assert process(world, recent) is Kind.ALREADY_PROCESSED


def test_both_tables_have_partitions_for_a_fortnight(world: World) -> None:
    item = received(3)
    process(world, item)
    upkeep(world).make_partitions()
    days = world.query("SELECT parent, count(*), max(since) FROM postern.partitions GROUP BY parent ORDER BY parent")
    newest = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=14)
    # Today, fourteen days, the day of the event, and the default one.
    assert days == [("attempts", 17, newest), ("events", 17, newest)]
    assert places(world, "attempts", "event_id") == {str(item.event.id): days_of(item, "attempts")}


# Days that go


def test_a_day_goes_as_a_whole_and_its_keys_stay(world: World) -> None:
    item = received(2, "evt_1")
    process(world, item, effect)
    upkeep(world).make_partitions()
    done = run(upkeep(world, in_days=28))
    assert (done["partitions_dropped"], place(world, item)) == (0, days_of(item))
    done = run(upkeep(world, in_days=29))
    assert (done["partitions_dropped"], done["rows_kept"], place(world, item)) == (2, 0, None)
    assert world.query("SELECT to_regclass(%s)::text", f"postern.{days_of(item)}") == [(None,)]

    again = work("evt_1")
    assert process(world, again, effect) is Kind.DUPLICATE
    assert world.effects() == 1
    # That delivery's id was given out just now, and leads to what it repeats for as long as any other does.
    run(upkeep(world, in_days=29))
    assert world.query("SELECT id::text, event_id::text FROM postern.duplicates") == [
        (str(again.event.id), str(item.event.id))
    ]


def test_what_is_unresolved_outlives_its_day_until_it_is_resolved_or_too_old(world: World) -> None:
    kept, resolved, fine = received(2), received(2), received(2)
    for item in (kept, resolved):
        assert process(world, item, fails) is Kind.RETRY
    process(world, fine)
    upkeep(world).make_partitions()
    attempts = len(places(world, "attempts", "event_id"))

    done = run(upkeep(world, in_days=40))
    assert (place(world, kept), place(world, resolved), place(world, fine)) == (
        "events_default",
        "events_default",
        None,
    )
    assert len(places(world, "attempts", "event_id")) == attempts - 1
    assert set(places(world, "attempts", "event_id").values()) == {"attempts_default"}
    assert done["partitions_not_dropped"] is None

    # Just resolved: a copy of its message may come for as long as the queues keep one.
    assert process(world, resolved) is Kind.PROCESSED
    run(upkeep(world, in_days=20))
    assert process(world, resolved, effect) is Kind.ALREADY_PROCESSED
    run(upkeep(world, in_days=40))
    assert list(places(world)) == [str(kept.event.id)]
    assert set(places(world, "attempts", "event_id")) == {str(kept.event.id)}

    run(upkeep(world, in_days=90))
    assert (places(world), places(world, "attempts", "event_id")) == ({}, {})
    assert world.effects() == 0


def test_what_was_settled_late_outlives_its_day_so_that_a_copy_of_its_message_finds_it(world: World) -> None:
    item = received(29)
    process(world, item)
    upkeep(world).make_partitions()
    assert place(world, item) == days_of(item)
    assert run(upkeep(world, in_days=5))["rows_kept"] == 2  # with its attempt
    assert process(world, item, effect) is Kind.ALREADY_PROCESSED
    assert run(upkeep(world, in_days=25))["events_deleted"] == 1


def test_an_unresolved_day_beyond_all_terms_is_dropped_whole(world: World) -> None:
    item = received(2)
    process(world, item, fails)
    upkeep(world).make_partitions()
    assert run(upkeep(world, in_days=100))["rows_kept"] == 0
    assert places(world) == {}


# Dedup keys


def test_a_key_expires_and_a_repetition_is_an_event_again(world: World) -> None:
    process(world, work("evt_1"), effect)
    run(upkeep(world, in_days=60))
    assert process(world, work("evt_1"), effect) is Kind.DUPLICATE
    assert run(upkeep(world, in_days=61))["dedup_keys_deleted"] == 1
    assert process(world, work("evt_1"), effect) is Kind.PROCESSED
    assert world.effects() == 2


def test_the_key_of_an_event_that_is_still_there_is_held(world: World) -> None:
    """Without it, a redrive of the event would seem to be its first try, and its row would be in the way for good."""
    item = work("evt_1")
    process(world, item, fails)
    assert run(upkeep(world, in_days=80))["dedup_keys_deleted"] == 0
    assert place(world, item) == "events_default"
    assert process(world, work("evt_1"), effect) is Kind.DUPLICATE
    assert process(world, item, effect) is Kind.PROCESSED
    assert world.effects() == 1


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
def test_wherever_it_begins_it_finds_every_key(world: World, random: float) -> None:
    world.query(
        "INSERT INTO postern.dedup_keys SELECT 'shop', 'key ' || n, postern.uuid7_floor(now()), now() - n * interval"
        " '1 minute' FROM generate_series(1, 60000) AS n"
    )
    assert upkeep(world, random=random, in_days=61).delete_leftovers()["dedup_keys_deleted"] == 60_000


def test_a_large_table_of_keys_is_walked_through_in_several_runs(world: World) -> None:
    walked: list[int] = []

    class Large(Storage):
        def key_pages(self) -> int:
            return 10_000

        def delete_keys(self, page: int, before: datetime) -> tuple[int, int]:
            walked.append(page)
            return super().delete_keys(page, before)

    upkeep(world, random=0.9, store=Large(world.database())).delete_leftovers()
    assert walked == [*range(9_000, 10_000, 250), *range(0, 1_500, 250)]


# What belongs to events


def test_duplicates_and_deliveries_go_with_their_events(world: World) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    first, second = sorted(new_event_id(at) for _ in range(2))
    whole = b'[{"n": 1}, {"n": 2}]'
    fine = work("a", id=first, received_at=at, delivery=first, delivery_body=whole)
    failed = work("b", id=second, received_at=at, delivery=first)
    process(world, fine)
    process(world, failed, fails)
    for key in ("a", "b"):
        assert process(world, received(0.5, key)) is Kind.DUPLICATE

    def left() -> list[tuple[int]]:
        return world.query("SELECT count(*) FROM postern.duplicates UNION ALL SELECT count(*) FROM postern.deliveries")

    done = run(upkeep(world, in_days=40))
    assert (done["duplicates_deleted"], done["deliveries_deleted"], left()) == (1, 0, [(1,), (1,)])
    done = run(upkeep(world, in_days=100))
    assert (done["duplicates_deleted"], done["deliveries_deleted"], left()) == (1, 1, [(0,), (0,)])


def repeat_often(world: World, times: int) -> None:
    world.query(
        "INSERT INTO postern.duplicates"
        " SELECT (left(postern.uuid7_floor(now())::text, 24) || lpad(n::text, 12, '0'))::uuid, gen_random_uuid(),"
        " 'shop', now() FROM generate_series(1, %s) AS n",
        times,
    )


def test_what_does_not_fit_into_one_transaction_goes_in_several(world: World) -> None:
    repeat_often(world, 12_000)
    assert upkeep(world, in_days=40).delete_leftovers()["duplicates_deleted"] == 12_000


def test_a_run_ends_in_time_and_the_next_goes_on(world: World) -> None:
    repeat_often(world, 12_000)
    ticks = iter([0.0, 0.0, 1.0, 1.0])
    hasty = Upkeep(
        Storage(world.database()),
        RETENTION,
        lambda: datetime.now(UTC) + timedelta(days=40),
        lambda: next(ticks, 61.0),
        lambda: 0.0,
    )
    done = hasty.delete_leftovers()
    assert 0 < done["duplicates_deleted"] < 12_000
    rest = upkeep(world, in_days=40).delete_leftovers()
    assert done["duplicates_deleted"] + rest["duplicates_deleted"] == 12_000


# Those who write meanwhile


@contextmanager
def transaction(world: World, sql: str) -> Iterator[None]:
    """Somebody else's, open all the while."""
    with closing(psycopg2.connect(world.url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        yield


def waits_for_a_lock(world: World) -> bool:
    [(count,)] = world.query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(count)


@pytest.mark.parametrize(
    ("held", "in_days", "field", "tried"),
    [("events_default", 1, "partitions_not_made", 1), ("events", 40, "partitions_not_dropped", 3)],
    ids=["made", "dropped"],
)
def test_a_lock_that_does_not_come_is_given_up_before_writers_wait_for_long(
    world: World, held: str, in_days: int, field: str, tried: int
) -> None:
    process(world, work())
    upkeep(world).make_partitions()
    with ThreadPoolExecutor(1) as functions:
        with transaction(world, f"LOCK TABLE ONLY postern.{held} IN ROW EXCLUSIVE MODE"):
            duty = upkeep(world, in_days=in_days)
            running = functions.submit(duty.make_partitions if in_days == 1 else duty.drop_partitions)
            eventually(lambda: waits_for_a_lock(world), every=0.01)
            started = time.monotonic()
            assert process(world, received(40), effect) is Kind.PROCESSED  # into the default partition
            assert time.monotonic() - started < BLOCKED_SECONDS
            done = running.result()
        assert len(done[field]) == tried  # of many, no more than three
        assert field not in {key for key, value in run(upkeep(world, in_days=in_days)).items() if value}
    assert world.effects() == 1


def test_a_writer_loses_nothing_and_waits_for_nothing_long_while_all_of_it_is_done(world: World) -> None:
    stop, items, slowest = threading.Event(), [], [0.0]

    def write() -> None:
        processor = world.processor(effect)
        while not stop.is_set():
            # Of today, of days to be made, of one beyond retention: whichever partition is being worked on.
            batch = [received(days) for days in (0, 3, 10, 29, 40)]
            started = time.monotonic()
            outcomes = processor.process(batch)
            slowest[0] = max(slowest[0], time.monotonic() - started)
            assert {outcome.kind for outcome in outcomes.values()} == {Kind.PROCESSED}
            items.extend(batch)

    with ThreadPoolExecutor(3) as functions:
        writers = [functions.submit(write) for _ in range(2)]
        try:
            eventually(lambda: len(items) > 20)
            for in_days in (0, 0, 1, 2, 5, 10):
                done = run(upkeep(world, in_days=in_days))
                assert (done["partitions_not_made"], done["partitions_not_dropped"]) == (None, None)
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    # In ten days' time too, all of them are younger than retention, or were settled too short a while ago.
    assert set(places(world)) == {str(item.event.id) for item in items}
    assert world.effects() == len(items)
    assert slowest[0] < BLOCKED_SECONDS


def test_what_is_written_to_a_day_in_the_moment_in_which_it_goes_is_kept(world: World) -> None:
    before, late = received(29), received(29)
    process(world, before)
    upkeep(world).make_partitions()

    class JustBefore(Storage):
        def retire_partition(self, *values: Any, **named: Any) -> int | None:
            process(world, late, effect)
            return super().retire_partition(*values, **named)

    done = run(upkeep(world, in_days=5, store=JustBefore(world.database())))
    assert (done["partitions_dropped"], done["rows_kept"]) == (2, 4)
    assert {place(world, before), place(world, late)} == {"events_default"}
    assert process(world, late, effect) is Kind.ALREADY_PROCESSED
    assert world.effects() == 1


def test_a_day_that_was_taken_out_before_there_was_a_column_is_dropped_all_the_same(world: World) -> None:
    late = received(29)
    process(world, late, effect)
    upkeep(world).make_partitions()
    world.query("SELECT postern.retire_partition('events', %s, '{}', false)", days_of(late))
    world.query(f"ALTER TABLE postern.{days_of(late)}_retired DROP COLUMN queued_at")
    done = run(upkeep(world, in_days=5))
    assert (done["partitions_not_dropped"], place(world, late)) == (None, "events_default")  # processed just now


def test_two_runs_at_once_do_the_work_of_one(world: World) -> None:
    for days in (1, 2, 3, 40):
        process(world, received(days), fails if days == 2 else effect)
    start = threading.Barrier(2)

    def maintain(in_days: int) -> dict[str, Any]:
        own = upkeep(world, in_days=in_days)
        start.wait()
        return run(own)

    with ThreadPoolExecutor(2) as functions:
        made = list(functions.map(maintain, [0, 0]))
        dropped = list(functions.map(maintain, [50, 50]))
    assert sum(done["partitions_made"] for done in made) == 6
    assert sum(done["rows_moved_home"] for done in made) == 6
    # The fifteen days from today on, which were there, and the three; of events and of attempts.
    assert sum(done["partitions_dropped"] for done in dropped) == 36
    assert sum(done["events_deleted"] for done in dropped) == 1
    assert [state for (state,) in world.query("SELECT status FROM postern.events")] == ["failed"]


class _Dies(BaseException):
    pass


class Mortal:
    """A store that dies at its nth call, before or after it is done."""

    def __init__(self, store: Storage, calls: int) -> None:
        self._store = store
        self.calls_left = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*values: Any, **named: Any) -> Any:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise _Dies
            return method(*values, **named)

        return call


def test_a_run_that_dies_between_any_two_steps_is_finished_by_the_next(world: World) -> None:
    failed, fine = received(1, "a"), received(2, "b")
    process(world, failed, fails)
    process(world, fine)
    calls = 0
    for in_days in (0, 40):
        while True:
            calls += 1
            store = Mortal(Storage(world.database()), calls)
            try:
                run(upkeep(world, in_days=in_days, store=store))
                break
            except _Dies:
                # Whatever was done, no row is in between.
                assert str(failed.event.id) in places(world)
                assert str(failed.event.id) in places(world, "attempts", "event_id")
        calls = 0
    assert places(world) == {str(failed.event.id): "events_default"}
    assert places(world, "attempts", "event_id") == {str(failed.event.id): "attempts_default"}
    assert process(world, work("b")) is Kind.DUPLICATE


# The report


def test_the_report_says_what_there_is(world: World) -> None:
    for item in (received(1), received(2)):
        process(world, item, fails)
    run(upkeep(world))
    report = presentable(upkeep(world).report())
    events = next(of for of in report["partitions"] if of["table"] == "events")
    today = datetime.now(UTC).date()
    oldest = today - timedelta(days=2)
    assert events == {
        "table": "events",
        "count": 17,
        "oldest": f"{oldest}",
        "newest": f"{today + timedelta(days=14)}",
        "days_ahead": 14,
        "next_drop": f"events_{oldest:%Y%m%d}",
        "next_drop_at": f"{oldest + timedelta(days=31)}T00:00:00Z",
        "default_rows": 0,
        "default_rows_to_move": 0,
    }
    sizes = {table["name"]: table for table in report["tables"]}
    assert {"events", "dedup_keys", "duplicates", "deliveries", "rejected"} <= sizes.keys()
    assert sizes["events"]["bytes"] == sum(sizes["events"][f"{part}_bytes"] for part in ("heap", "index", "toast"))
    assert {"events_pkey", "dedup_keys_pkey"} <= {index["name"] for index in report["indexes"] if index["valid"]}
    assert report["dedup_keys"]["oldest_days"] == 2
    assert report["retention"] == {"retention_days": 30, "dedup_days": 60, "unresolved_days": 90}
    assert (report["unresolved_kept"], report["warnings"]) == (0, [])

    run(upkeep(world, in_days=40))
    assert upkeep(world, in_days=40).report()["unresolved_kept"] == 2


def test_the_report_warns_when_maintenance_is_behind(world: World) -> None:
    process(world, received(20))
    world.query("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'postern.duplicates_event_id'::regclass")
    warnings = upkeep(world, in_days=12).report()["warnings"]
    assert [warning.partition(":")[0] for warning in warnings if "events" in warning or "Index" in warning] == [
        "postern.events has partitions for 2 days ahead",
        "Index duplicates_event_id of postern.duplicates is invalid, and is of no use",
    ]
    assert "1 rows in events_default belong to days" in upkeep(world).report()["warnings"][0]
    assert "should have been dropped" in "".join(upkeep(world, in_days=40).report()["warnings"])


def test_the_command_prints_tables_for_people_and_json_for_pipes(world: World) -> None:
    process(world, work(), fails)
    environ = {**os.environ, "DATABASE_URL": world.url, "RETENTION_DAYS": "45", "DEDUP_DAYS": "30"}

    def postern(*arguments: str) -> str:
        return commands.postern("storage", *arguments, environ=environ, check=True).stdout

    report = json.loads(postern("--json"))
    assert report["retention"] == {"retention_days": 45, "dedup_days": 45, "unresolved_days": 365}
    text = postern()
    assert all(heading in text for heading in ("TABLE", "PARTITIONS OF", "INDEX", "Kept for"))
    assert "45 days" in text


def test_what_is_known_of_entities_and_replays_goes_with_its_time(world: World) -> None:
    world.query(
        "INSERT INTO postern.entities (source, entity, version, event_id, at)"
        " SELECT 'shop', n::text, 1, gen_random_uuid(), now() - make_interval(days => n) FROM generate_series(0, 100) n"
    )
    world.query(
        "INSERT INTO postern.replays (id, kind, trigger, filter, total, rate, state, created_at, finished_at)"
        " SELECT gen_random_uuid(), 'replay', 'replay', '{}', 1, 1, CASE n WHEN 50 THEN 'running' ELSE 'done' END,"
        " now() - make_interval(days => n), CASE n WHEN 50 THEN NULL ELSE now() - make_interval(days => n) END"
        " FROM generate_series(1, 50) n"
    )
    world.query("INSERT INTO postern.replay_items SELECT id, gen_random_uuid() FROM postern.replays")
    run(upkeep(world, random=0.0))
    [(entities, oldest)] = world.query("SELECT count(*), max(now() - at) FROM postern.entities")
    kept = upkeep(world).retention
    assert oldest <= timedelta(days=kept.dedup_days + 1)
    assert entities >= min(kept.dedup_days, 100)
    [(replays, items)] = world.query(
        "SELECT (SELECT count(*) FROM postern.replays), (SELECT count(*) FROM postern.replay_items)"
    )
    assert replays == items == min(kept.days, 49) + 1
