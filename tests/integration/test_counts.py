"""Counts by the hour: always what the rows say, and maintenance makes them cheap to ask for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import UnfitArguments
from chalicelib.postern.operating.counts import actions
from chalicelib.postern.operating.counts.queries import Counts
from chalicelib.postern.operating.operator import Operator
from tests.integration.world import World, fails_for, now, numbered, work
from tests.support import eventually

_ROWS = """
SELECT date_trunc('hour', received_at, 'UTC'), source, type, status, count(*), sum(attempts)::bigint
FROM postern.events GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
_COUNTS = """
SELECT hour, source, type, status, sum(events)::bigint, sum(attempts)::bigint
FROM postern.counts GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""


def count(world: World) -> dict[str, Any]:
    return dict(actions.Counter(Counts(world.database()), lambda: 0.0).count())


def is_right(world: World) -> bool:
    counts = world.query(_COUNTS)
    assert counts == world.query(_ROWS)
    return bool(counts)


def insert(world: World, at: datetime, **columns: Any) -> str:
    row = {"source": "shop", "type": "order", "status": "processed", "attempts": 1, **columns}
    error = None if row["status"] == "processed" else "why"
    id = str(new_event_id(at))
    world.query(
        "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, error, received_at, processed_at,"
        " headers, payload, body) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, '{}', '{}', '')",
        id, row["source"], row["type"], id, row["status"], row["attempts"], error, at, None if error else at,
    )  # fmt: skip
    return id


def settle(world: World) -> None:
    """As if the last look had been six minutes ago, and whoever wrote then in this server, in any database, had ended:
    other tests do.
    """
    look_long_ago(world)
    eventually(
        lambda: world.query("SELECT pg_snapshot_xmin(pg_current_snapshot()) > looked_in FROM postern.counting")[0][0]
    )


def look_long_ago(world: World) -> None:
    world.query("UPDATE postern.counting SET looked_at = clock_timestamp() + interval '5 minutes'")


def counted_hours(world: World) -> int:
    return int(world.query("SELECT count(DISTINCT hour) FROM postern.hour_counts")[0][0])


@contextmanager
def open_transaction(world: World) -> Iterator[Any]:
    connection = psycopg2.connect(world.url)
    try:
        with connection.cursor() as cursor:
            yield cursor
        connection.commit()
    finally:
        connection.close()


def test_counts_are_what_the_rows_say_before_anything_was_counted(world: World) -> None:
    world.processor(fails_for(2)).process(numbered(1, 2, 3))
    insert(world, now() - timedelta(days=3))
    assert is_right(world)
    assert counted_hours(world) == 0


def test_what_came_before_there_were_counts_is_counted_hour_by_hour(world: World) -> None:
    begin = now()
    for days in (0.2, 1, 2, 2, 40, 400):
        insert(world, begin - timedelta(days=days))
    assert count(world)["hours_counted"] >= 5
    assert counted_hours(world) == 5
    assert is_right(world)
    assert is_right(world)


def test_what_is_new_is_counted_once_it_is_settled(world: World) -> None:
    world.processor(fails_for(2)).process(numbered(1, 2, 3))
    count(world)
    assert counted_hours(world) == 0
    settle(world)
    count(world)
    assert is_right(world)
    assert counted_hours(world) == 1
    world.processor().process(numbered(4))  # in the same hour
    assert is_right(world)
    settle(world)
    count(world)
    assert is_right(world)
    assert world.query("SELECT sum(events) FROM postern.hour_counts") == [(4,)]


def test_nothing_is_counted_while_who_wrote_before_may_still_commit(world: World) -> None:
    with open_transaction(world) as cursor:
        at = now()
        cursor.execute(
            "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at,"
            " headers, body) VALUES (%s, 'shop', 'order', 'k', 'processed', 1, %s, %s, '{}', '')",
            (str(new_event_id(at)), at, at),
        )
        world.query("UPDATE postern.counting SET looked_in = pg_current_xact_id()")
        look_long_ago(world)
        assert count(world)["hours_counted"] == 0
    settle(world)
    assert count(world)["hours_counted"] >= 1
    assert counted_hours(world) == 1
    assert is_right(world)


def test_a_change_after_an_hour_was_counted_shows_at_once_and_is_counted_again(world: World) -> None:
    id = insert(world, now() - timedelta(days=2), status="dead")
    count(world), count(world)
    world.query("UPDATE postern.events SET status = 'processed', error = NULL, processed_at = now(), attempts = 2")
    assert is_right(world)
    insert(world, now() - timedelta(days=2))
    assert is_right(world)
    assert count(world)["hours_recounted"] == 1
    assert is_right(world)
    world.query("DELETE FROM postern.events WHERE id = %s", id)
    assert is_right(world)
    count(world)
    assert world.query("SELECT sum(events) FROM postern.hour_counts") == [(1,)]


def test_a_failed_try_of_an_old_event_leaves_its_mark(world: World) -> None:
    at = now() - timedelta(hours=3)
    late = work(id=new_event_id(at), received_at=at)
    world.processor(fails_for(1)).process([late])
    count(world), count(world)
    world.processor().process([late])
    assert is_right(world)
    [(status, attempts)] = world.query("SELECT status, attempts FROM postern.counts")
    assert (status, attempts) == ("processed", 2)


def test_a_day_that_is_dropped_is_dropped_from_the_counts(world: World) -> None:
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
    day = midnight - timedelta(days=3)
    world.query("SELECT postern.make_partition('events', %s::date)", day.date())
    insert(world, day + timedelta(hours=1))
    insert(world, day + timedelta(hours=2), status="dead")
    count(world), count(world)
    assert is_right(world)
    name = f"events_{day:%Y%m%d}"
    world.query("SELECT postern.retire_partition('events', %s, '{}', true)", name)
    world.query("SELECT postern.drop_retired('events', %s, now())", f"{name}_retired")
    assert world.query("SELECT status, events FROM postern.counts") == [("dead", 1)]
    count(world)
    assert world.query("SELECT status, events FROM postern.hour_counts") == [("dead", 1)]


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_what_the_rows_say_whatever_happens(world: World, seed: int) -> None:
    chance = random.Random(seed)
    begin = now()
    ids: list[str] = []

    def write() -> None:
        at = begin - timedelta(minutes=chance.choice([0, 1, 4, 6, 50, 70, 1500, 5000]))
        kinds = {
            "source": chance.choice("ab"),
            "type": chance.choice("xy"),
            "status": chance.choice(["failed", "dead"]),
        }
        ids.append(insert(world, at, **kinds))

    def change() -> None:
        if ids:
            world.query("UPDATE postern.events SET attempts = attempts + 1 WHERE id = %s", chance.choice(ids))

    def delete() -> None:
        if ids:
            world.query("DELETE FROM postern.events WHERE id = %s", ids.pop(chance.randrange(len(ids))))

    def maintain() -> None:
        count(world)

    def wait() -> None:
        # Time passes for what is written: rows move into the past with their hours, as little as can be.
        world.query("UPDATE postern.counting SET looked_at = looked_at + interval '1 second'")

    for _ in range(60):
        chance.choices([write, change, delete, maintain, wait], weights=[6, 4, 1, 3, 1])[0]()
        assert world.query(_COUNTS) == world.query(_ROWS)


def test_who_may_read_the_view_needs_no_other_right_and_who_may_delete_events_none_on_counts(world: World) -> None:
    insert(world, now() - timedelta(days=1))
    count(world)
    role = f"looker_{world.url.rsplit('_', 1)[1]}"
    world.query(f"CREATE ROLE {role}")
    try:
        world.query(f"GRANT USAGE ON SCHEMA postern TO {role}; GRANT SELECT ON postern.hourly TO {role}")
        assert world.query(f"SET LOCAL ROLE {role}; SELECT sum(events) FROM postern.hourly") == [(1,)]
        world.query(f"GRANT SELECT, DELETE ON postern.events TO {role}")
        world.query(f"SET LOCAL ROLE {role}; DELETE FROM postern.events")
        assert is_right(world) is False
    finally:
        world.query(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_an_hour_that_changes_all_the_time_keeps_nothing_else_waiting(world: World) -> None:
    hour = now() - timedelta(days=1)
    insert(world, hour)
    count(world)
    insert(world, hour)

    class Busy(Counts):
        def recount(self, done: Any) -> datetime | None:
            insert(world, hour)
            return super().recount(done)

    done = actions.Counter(Busy(world.database()), lambda: 0.0).count()
    assert done["hours_recounted"] == 1
    assert is_right(world)


def test_counting_goes_on_in_a_server_that_the_database_was_restored_in(world: World) -> None:
    """Where the ids of transactions begin anew."""
    world.processor().process(numbered(1))
    world.query("UPDATE postern.counting SET looked_in = '900000000'")
    count(world)
    settle(world)
    count(world)
    assert counted_hours(world) == 1
    assert is_right(world)


def test_a_row_whose_id_is_of_another_hour_ends_nothing(world: World) -> None:
    at = now() - timedelta(days=3)
    id = insert(world, at)
    world.query("UPDATE postern.events SET received_at = received_at + interval '2 days' WHERE id = %s", id)
    count(world)
    world.query("UPDATE postern.events SET type = 'other'")
    count(world), count(world)
    assert world.query("SELECT type, sum(events) FROM postern.counts GROUP BY 1") == [("other", 1)]


def operator(world: World) -> Operator:
    return Operator(actions.views(Counts(world.database()), now), {})


def test_stats_have_a_point_for_each_step_with_anything_in_it(world: World) -> None:
    at = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
    for minutes in (0, 1, 45):
        insert(world, at + timedelta(minutes=minutes))
    insert(world, at, source="club", status="failed")

    def stats(**arguments: Any) -> list[tuple[Any, ...]]:
        span = {"since": "2026-03-01T10:10:00Z", "until": "2026-03-01T15:00:00Z", **arguments}
        points = operator(world).perform({"action": "stats", **span})["points"]
        return [(point["at"], point["source"], point["processed"], point["failed"]) for point in points]

    assert stats() == [("2026-03-01T10:00:00Z", None, 2, 1), ("2026-03-01T11:00:00Z", None, 1, 0)]
    assert stats(step="day") == [("2026-03-01T00:00:00Z", None, 3, 1)]
    assert stats(step="minute", source="shop")[0] == ("2026-03-01T10:30:00Z", None, 1, 0)
    assert stats(by_source=True)[0] == ("2026-03-01T10:00:00Z", "club", 0, 1)
    assert stats(type="nothing") == []


def test_stats_tell_how_long_senders_and_rows_waited(world: World) -> None:
    at = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
    for seconds in range(1, 12):
        insert(world, at + timedelta(minutes=seconds))
    world.query(
        "UPDATE postern.events SET queued_at = received_at + interval '20 ms', duration_ms = 1,"
        " processed_at = received_at + interval '2 s'"
    )
    found = operator(world).perform(
        {"action": "stats", "since": "2026-03-01T10:00:00Z", "until": "2026-03-01T12:00:00Z"}
    )
    assert found["ack"] == {"p50": 0.02, "p95": 0.02, "p99": 0.02}
    assert found["time_to_row"] == {"events": 11, "p50": 2, "p95": 2, "p99": 2}


def test_stats_by_the_minute_span_no_more_than_a_page_can_show(world: World) -> None:
    with pytest.raises(UnfitArguments, match="6 hours at most"):
        operator(world).perform({"action": "stats", "step": "minute", "since": "2026-01-01T00:00:00Z"})
