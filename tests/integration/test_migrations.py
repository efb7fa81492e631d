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
from devstack.postgres import Server, url_of
from tests.integration.world import World, work
from tests.support import eventually


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


# Postern's own, in their order, and then the team's.
OURS, TEAMS = ([file.stem for file in sorted(FOLDERS[owner].glob("*.sql"))] for owner in ("postern", "handlers"))


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
    assert migrate(empty_database_url) == [*OURS, *TEAMS]
    assert migrate(empty_database_url) == []


def test_two_runs_at_once_apply_each_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as runs:
        applied = list(runs.map(lambda _: migrate(empty_database_url), range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(OURS + TEAMS)]


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
        ("queued_at", "timestamp with time zone"),
        ("origin", "text"),
        ("written_in", "xid8"),
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


# As people write them


def team(tmp_path: Path, **files: str) -> dict[str, Path]:
    """Postern's own, and these in the team's room."""
    folder(tmp_path, **files)
    return {**FOLDERS, "handlers": tmp_path}


def test_what_a_migration_sets_ends_with_it(empty_database_url: str, tmp_path: Path) -> None:
    dump = (
        "SET statement_timeout = 0; SET client_encoding = 'LATIN1'; SET row_security = off;"
        "SELECT pg_catalog.set_config('search_path', '', false);"
        "CREATE TEMP TABLE scratch (); PREPARE nothing AS SELECT 1; SELECT pg_advisory_lock(7);"
        "CREATE TABLE public.orders (id text NOT NULL)"
    )
    after = (
        "CREATE TEMP TABLE scratch (); PREPARE nothing AS SELECT 1;"
        "CREATE TABLE customers AS SELECT current_setting('client_encoding') AS encoding,"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7) AS locks"
    )
    assert migrate(empty_database_url, team(tmp_path, **{"0001_dump": dump, "0002_after": after}))[-1] == "0002_after"
    assert query(empty_database_url, "SELECT * FROM public.customers") == [("UTF8", 0)]


def test_a_role_of_its_own_is_given_back(empty_database_url: str, tmp_path: Path) -> None:
    role = f"guest_{uuid.uuid4().hex[:8]}"
    sql = f"CREATE ROLE {role}; GRANT {role} TO CURRENT_USER; SET ROLE {role}"
    folders = team(tmp_path, **{"0001_role": sql, "0002_drop": f"DROP ROLE {role}"})
    assert migrate(empty_database_url, folders)[-1] == "0002_drop"


@pytest.mark.parametrize("setting", ["statement_timeout = '100ms'", "idle_in_transaction_session_timeout = '100ms'"])
def test_a_migration_takes_the_time_that_it_takes(empty_database_url: str, tmp_path: Path, setting: str) -> None:
    database = empty_database_url.rpartition("/")[2]
    with contextlib.closing(psycopg2.connect(empty_database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f'ALTER DATABASE "{database}" SET {setting}')
    assert migrate(empty_database_url, team(tmp_path, **{"0001_slow": "SELECT pg_sleep(0.3)"}))[-1] == "0001_slow"


@pytest.mark.parametrize(
    "sql",
    ["BEGIN; CREATE TABLE half (); COMMIT;", "CREATE TABLE half (); ROLLBACK; SELECT 1", "CREATE TABLE half (); END"],
)
def test_one_that_ends_its_transaction_is_refused_before_any_is_run(
    empty_database_url: str, tmp_path: Path, sql: str
) -> None:
    with pytest.raises(MigrationError, match=r"0002_half ends its transaction.*take BEGIN and COMMIT out"):
        migrate(empty_database_url, team(tmp_path, **{"0001_one": "CREATE TABLE one ()", "0002_half": sql}))
    assert query(empty_database_url, "SELECT to_regclass('one')::text, to_regclass('half')::text") == [(None, None)]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION one() RETURNS integer BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;",
        "CREATE FUNCTION one() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$",
        "-- COMMIT;\nSELECT 'COMMIT;'",
        "SAVEPOINT here; ROLLBACK TO here;",
    ],
)
def test_what_only_looks_like_an_end_is_none(empty_database_url: str, tmp_path: Path, sql: str) -> None:
    assert migrate(empty_database_url, team(tmp_path, **{"0001_looks": sql}))[-1] == "0001_looks"


INDEX = "CREATE INDEX CONCURRENTLY orders_total ON public.orders (total)"
ORDERS = "CREATE TABLE public.orders (total integer); INSERT INTO public.orders VALUES (1), (1)"


def test_an_index_is_made_while_others_write(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, team(tmp_path, **{"0001_orders": ORDERS}))
    folders = team(tmp_path, **{"0002_index": f"-- no-transaction\n{INDEX};\n-- That is all; really.\n"})
    with contextlib.closing(psycopg2.connect(empty_database_url)) as writer, ThreadPoolExecutor(1) as runs:
        with writer.cursor() as cursor:
            cursor.execute("INSERT INTO public.orders VALUES (2)")
        run = runs.submit(migrate, empty_database_url, folders)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CONCURRENTLY%' AND wait_event = 'virtualxid'"
        eventually(lambda: query(empty_database_url, waits) == [(1,)])
        with contextlib.closing(psycopg2.connect(empty_database_url)) as another, another, another.cursor() as cursor:
            cursor.execute("INSERT INTO public.orders VALUES (3)")
        writer.commit()
        assert run.result() == ["0002_index"]
    assert query(empty_database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_total'::regclass") == [
        (True,)
    ]


def test_an_index_that_failed_leaves_nothing(empty_database_url: str, tmp_path: Path) -> None:
    unique = INDEX.replace("INDEX", "UNIQUE INDEX")
    folders = team(tmp_path, **{"0001_orders": ORDERS, "0002_index": f"-- no-transaction\n{unique}"})
    with pytest.raises(MigrationError) as failed:
        migrate(empty_database_url, folders)
    assert "0002_index failed: could not create unique index" in str(failed.value)
    assert "0001_orders before it is applied" in str(failed.value)
    assert query(empty_database_url, "SELECT to_regclass('orders_total')::text") == [(None,)]


def test_an_index_that_was_cut_off_is_begun_again(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, team(tmp_path, **{"0001_orders": ORDERS}))
    with contextlib.closing(psycopg2.connect(empty_database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        with pytest.raises(psycopg2.Error):  # as a run that was killed leaves it
            cursor.execute(INDEX.replace("INDEX", "UNIQUE INDEX"))
    again = INDEX.replace("CONCURRENTLY", "CONCURRENTLY IF NOT EXISTS")
    assert migrate(empty_database_url, team(tmp_path, **{"0002_index": f"-- no-transaction\n{again}"}))
    assert query(empty_database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_total'::regclass") == [
        (True,)
    ]


def unfinished(url: str, sql: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        with pytest.raises(psycopg2.Error):
            cursor.execute(sql)


def test_an_index_is_known_again_as_postgresql_writes_its_name(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, team(tmp_path, **{"0001_orders": ORDERS}))
    unfinished(empty_database_url, INDEX.replace("INDEX", "UNIQUE INDEX"))
    again = "CREATE INDEX CONCURRENTLY IF NOT EXISTS Orders_Total ON Orders (total)"
    assert migrate(empty_database_url, team(tmp_path, **{"0002_index": f"-- no-transaction\n{again}"}))
    assert query(empty_database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_total'::regclass") == [
        (True,)
    ]


def test_an_unfinished_index_of_something_else_is_left_alone(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, team(tmp_path, **{"0001_orders": ORDERS}))
    unfinished(empty_database_url, "CREATE UNIQUE INDEX CONCURRENTLY total ON public.orders (total)")
    migrate(empty_database_url, team(tmp_path, **{"0002_index": f"-- no-transaction\n{INDEX}"}))
    assert query(empty_database_url, "SELECT to_regclass('total')::text") == [("total",)]


def test_without_a_transaction_names_are_the_teams_own_too(empty_database_url: str, tmp_path: Path) -> None:
    sql = "-- no-transaction\nCREATE INDEX CONCURRENTLY mine ON issues (n)"
    folders = team(tmp_path, **{"0001_issues": "CREATE TABLE public.issues (n integer)", "0002_index": sql})
    assert migrate(empty_database_url, folders)[-1] == "0002_index"
    where = "SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = 'public.mine'::regclass"
    assert query(empty_database_url, f"SET search_path = ''; {where}") == [("public.issues",)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("-- no-transaction\nDO $$ BEGIN CREATE TABLE half (); COMMIT; PERFORM 1 / 0; END $$", "could leave a part"),
        ("-- no-transaction\nCALL something()", "could leave a part"),
        (INDEX, "begins with the line -- no-transaction"),
        (f"-- no-transaction\n{INDEX}; SELECT 1", "several statements"),
        ("-- no-transaction\nCREATE INDEX CONCURRENTLY ON public.orders (total)", "without a name"),
    ],
)
def test_what_could_end_half_done_is_refused(empty_database_url: str, tmp_path: Path, sql: str, said: str) -> None:
    with pytest.raises(MigrationError, match=said):
        migrate(empty_database_url, team(tmp_path, **{"0001_bad": sql}))


def test_files_as_windows_editors_save_them_are_read(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_orders.sql").write_bytes("\ufeffCREATE TABLE public.orders (\r\n  id text\r\n);\r\n".encode())
    assert migrate(empty_database_url, {**FOLDERS, "handlers": tmp_path})[-1] == "0001_orders"
    # And are the same migration where git has changed their line ends.
    (tmp_path / "0001_orders.sql").write_bytes(b"CREATE TABLE public.orders (\n  id text\n);\n")
    assert migrate(empty_database_url, {**FOLDERS, "handlers": tmp_path}) == []


def test_the_team_may_delete_one_and_go_on_counting(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, team(tmp_path, **{"0001_example": "SELECT 1", "0002_own": "SELECT 2"}))
    (tmp_path / "0001_example.sql").unlink()
    assert migrate(empty_database_url, team(tmp_path, **{"0003_next": "SELECT 3"})) == ["0003_next"]


def test_two_of_one_number_are_refused(empty_database_url: str, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"0001_b\.sql is not the name of a migration: 0001 is taken"):
        migrate(empty_database_url, team(tmp_path, **{"0001_a": "SELECT 1", "0001_b": "SELECT 2"}))


def test_a_database_without_room_for_all_characters_is_refused(postgres_server: Server) -> None:
    name = f"latin_{uuid.uuid4().hex[:8]}"
    with contextlib.closing(psycopg2.connect(postgres_server.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        url = url_of(postgres_server, name)
        with pytest.raises(MigrationError, match=f"The encoding of database {name} is LATIN1.*ENCODING 'UTF8'"):
            migrate(url)
        assert query(url, "SELECT to_regnamespace('postern')::text") == [(None,)]
        cursor.execute(f"DROP DATABASE {name}")
