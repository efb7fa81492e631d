"""The schema is the sum of its migrations, each applied once."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from chalicelib.postern.adapters.migrations import FOLDERS, migrate
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import DatabaseUnavailable, MigrationError
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.storage.actions import Retention, Upkeep, duties
from chalicelib.postern.operating.storage.queries import Storage
from chalicelib.postern.processing.settling import Kind
from tests.integration.world import World, work
from tests.support import eventually


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


# Postern's own, in their order.
ALL = [file.stem for file in sorted(FOLDERS["postern"].glob("*.sql"))]


def insert_processed(url: str, moments: list[datetime]) -> None:
    """An event for each of them, as the first version wrote them."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at,"
            " headers, body) VALUES %s",
            [(str(new_event_id(at)), f"{n}", at, at) for n, at in enumerate(moments)],
            template="(%s, 'shop', 'order', %s, 'processed', 1, %s, %s, '{}', '')",
        )


def uuid_age(id: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromtimestamp((uuid.UUID(id).int >> 80) / 1000, UTC)


def received(at: datetime) -> Any:
    return work(id=new_event_id(at), received_at=at)


def folder(tmp_path: Path, **files: str) -> dict[str, Path]:
    for name, sql in files.items():
        (tmp_path / f"{name}.sql").write_text(sql)
    return {"postern": tmp_path}


def test_each_migration_is_applied_once(empty_database_url: str) -> None:
    assert migrate(empty_database_url) == [*ALL, "0001_github_pushes"]
    assert migrate(empty_database_url) == []


def test_two_runs_at_once_apply_each_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as runs:
        applied = list(runs.map(lambda _: migrate(empty_database_url), range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(ALL) + 1]


def test_the_contracts_columns_are_there(database_url: str) -> None:
    columns = query(
        database_url,
        "SELECT column_name::text, data_type::text FROM information_schema.columns"
        " WHERE table_schema = 'postern' AND table_name = 'events' ORDER BY ordinal_position",
    )
    assert columns == [
        ("id", "uuid"),
        ("source", "text"),
        ("type", "text"),
        ("dedup_key", "text"),
        ("status", "text"),
        ("attempts", "integer"),
        ("error", "text"),
        ("received_at", "timestamp with time zone"),
        ("processed_at", "timestamp with time zone"),
        ("headers", "jsonb"),
        ("payload", "jsonb"),
        ("body", "bytea"),
        ("request_id", "text"),
        ("delivery_id", "uuid"),
        ("secret", "text"),
        ("format", "text"),
        ("form_field", "text"),
        ("same_body_as", "uuid"),
        ("duration_ms", "real"),
    ]


def test_a_failing_migration_leaves_nothing_of_itself_and_all_before_it(
    empty_database_url: str, tmp_path: Path
) -> None:
    folders = folder(tmp_path, **{"0001_good": "CREATE TABLE good ()", "0002_bad": "CREATE TABLE bad (); SELECT 1 / 0"})
    with pytest.raises(MigrationError, match=r"Migration 0002_bad failed: division by zero"):
        migrate(empty_database_url, folders)
    assert query(empty_database_url, "SELECT to_regclass('good')::text, to_regclass('bad')::text") == [("good", None)]
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE bad ()")
    assert migrate(empty_database_url, folders) == ["0002_bad"]


def test_an_applied_migration_must_not_change_or_vanish(empty_database_url: str, tmp_path: Path) -> None:
    folders = folder(tmp_path, **{"0001_one": "SELECT 1"})
    migrate(empty_database_url, folders)
    (tmp_path / "0001_one.sql").write_text("SELECT 2")
    with pytest.raises(MigrationError, match="0001_one was changed after it was applied"):
        migrate(empty_database_url, folders)
    (tmp_path / "0001_one.sql").unlink()
    with pytest.raises(MigrationError, match="the database is newer than the code"):
        migrate(empty_database_url, folders)


@pytest.mark.parametrize("name", ["0002_gap", "1_short", "0001-dash", "first"])
def test_a_name_out_of_order_is_named(empty_database_url: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(MigrationError, match=name):
        migrate(empty_database_url, folder(tmp_path, **{name: "SELECT 1"}))


def test_a_team_may_drop_the_example(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url)
    assert migrate(empty_database_url, {**FOLDERS, "handlers": tmp_path}) == []


def test_a_database_that_is_away_is_said_to_be() -> None:
    with pytest.raises(DatabaseUnavailable, match="Connection refused"):
        migrate("postgresql://u:canary@127.0.0.1:1/d")


def test_the_floor_of_a_moment_is_the_floor_of_its_ids(database_url: str) -> None:
    """An id holds whole milliseconds; a rounded floor would miss the event of the very moment."""
    [(low,)] = query(database_url, "SELECT postern.uuid7_floor('2026-11-23 12:00:00.0006+00')::text")
    assert uuid.UUID(low).int >> 80 == int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)


def test_a_living_database_with_events_is_upgraded_without_losing_or_blocking_any(
    empty_database_url: str, tmp_path: Path
) -> None:
    """From before partitions were made one at a time: events of several days, most of them without a partition."""
    url, old = empty_database_url, tmp_path / "old"
    old.mkdir()
    for file in sorted(FOLDERS["postern"].glob("000[1-4]_*.sql")):
        shutil.copy(file, old)
    assert len(migrate(url, {"postern": old})) == 4
    moments = [datetime.now(UTC) - timedelta(days=days, seconds=n) for days in (0, 1, 2, 20, 200) for n in range(200)]
    insert_processed(url, moments)
    before = {id for (id,) in query(url, "SELECT id::text FROM postern.events")}

    stop, stored, slowest = threading.Event(), [], [0.0]

    def write() -> None:
        world = World(url, [])
        processor = world.processor()
        while not stop.is_set():
            days = [0, 1, 20, 40]
            batch = [received(datetime.now(UTC) - timedelta(days=n)) for n in days]
            while batch:  # what comes while a column is still missing comes again
                started = time.monotonic()
                outcomes = processor.process(batch)
                slowest[0] = max(slowest[0], time.monotonic() - started)
                stored.extend(id for id, outcome in outcomes.items() if outcome.kind is Kind.PROCESSED)
                batch = [item for item in batch if outcomes[item.event.id].kind is Kind.RETRY]
        for database in world.open:
            database.close()

    with ThreadPoolExecutor(1) as functions:
        writer = functions.submit(write)
        try:
            migrate(url)
            eventually(lambda: len(stored) > 20)
            database = Database(lambda fresh: url)
            retention = Retention.of(days=90, dedup_days=180, unresolved_days=365)
            upkeep = Upkeep(Storage(database), retention, lambda: datetime.now(UTC), time.monotonic, lambda: 0.0)
            done = Operator({}, duties(upkeep)).maintain()
            database.close()
        finally:
            stop.set()
        writer.result()
    assert (done["partitions_not_made"], done["partitions_not_dropped"], done["events_deleted"]) == (None, None, 200)
    left = query(url, "SELECT e.id::text, c.relname::text FROM postern.events e JOIN pg_class c ON c.oid = e.tableoid")
    assert {id for id, _ in left} == {id for id in before if uuid_age(id) < timedelta(days=90)} | set(map(str, stored))
    # What came after the day was looked at moves the next time.
    assert not {id for id, place in left if place == "events_default"} & before
    assert slowest[0] < 2.5
