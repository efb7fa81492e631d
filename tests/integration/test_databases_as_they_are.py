"""Databases as people have them: set to something else, behind a pooler, with columns and triggers of the team's."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg2
import pytest

from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.adapters.row_changes import RowChanges
from chalicelib.postern.contract.errors import DatabaseUnavailable
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.filters import EventFilters
from chalicelib.postern.processing.settling import Kind
from tests.integration.test_storage import days_of, fails, received, run, upkeep
from tests.integration.world import World, effect, numbered, work
from tests.pooler import pooled
from tests.support import ask

# Set to something else


def set_to(url: str, **settings: str) -> None:
    for name, value in settings.items():
        ask(url, f'ALTER DATABASE "{url.rpartition("/")[2]}" SET {name} = {value}')


UNUSUAL = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "timezone": "'Asia/Kathmandu'",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "default_transaction_isolation": "'repeatable read'",
    "search_path": "''",
    "statement_timeout": "'50ms'",
    "synchronous_commit": "off",
    "client_encoding": "latin1",
}


def test_a_database_that_is_set_to_something_else_works_all_the_same(empty_database_url: str) -> None:
    url = empty_database_url
    set_to(url, **UNUSUAL)
    migrate(url)
    ask(url, "CREATE TABLE public.effects (event uuid, n integer, text text)")

    def slow(event: Any, db: Any) -> None:
        text = event.payload["text"]
        db.execute("INSERT INTO public.effects SELECT %s, 1, %s FROM pg_sleep(0.1)", (str(event.id), text))

    world = World(url, [])
    text = "a\\b\"c'd\n\u20ac"
    event = work(body=b'{"text": "a\\\\b\\"c\'d\\n\xe2\x82\xac"}')
    outcomes = world.processor(slow).process([event])
    assert [outcome.kind for outcome in outcomes.values()] == [Kind.PROCESSED]
    assert ask(url, "SELECT text FROM public.effects") == [(text,)]
    assert ask(url, "SELECT payload ->> 'text', encode(body, 'hex') FROM postern.events") == [(text, event.body.hex())]
    # A day has its partition, and is UTC's.
    assert upkeep(world).make_partitions()["partitions_not_made"] is None
    assert ask(url, "SELECT tableoid::regclass::text FROM postern.events") == [(days_of(event),)]
    assert ask(url, "SELECT count(*) FROM postern.partitions WHERE since IS NOT NULL")[0][0] > 20
    for database in world.open:
        database.close()


@pytest.mark.parametrize(("set", "held"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
@pytest.mark.parametrize("handler_sets", [False, True])
def test_what_is_acknowledged_to_the_queue_is_durable(world: World, set: str, held: str, handler_sets: bool) -> None:
    set_to(world.url, synchronous_commit=set)
    world.query("CREATE TABLE commits (how text)")
    world.query(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO postern.commits VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER note AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION note()"
    )

    def handler(event: Any, db: Any) -> None:
        if handler_sets:
            db.execute("SET LOCAL synchronous_commit = off")
        effect(event, db)

    world.processor(handler).process(numbered(1))
    assert world.query("SELECT how FROM commits") == [(held,)]


def test_what_is_deferred_to_the_commit_sees_what_the_handler_set(world: World) -> None:
    world.query(
        "CREATE TABLE audit (tenant text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO postern.audit VALUES (current_setting('app.tenant', true)); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER note AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION note()"
    )

    def handler(event: Any, db: Any) -> None:
        db.execute("SET LOCAL app.tenant = 'acme'")
        effect(event, db)

    world.processor(handler).process(numbered(1))
    assert world.query("SELECT tenant FROM audit") == [("acme",)]


# Who cannot log in


def refusing(message: str) -> Iterator[str]:
    """A server that refuses every login with this message, as PostgreSQL's protocol has it."""
    fields = b"".join(
        kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"C", "28P01"), (b"M", message))
    )
    answer = b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    while client.recv(8) == struct.pack("!ii", 8, 80877103):  # whether there is TLS
                        client.sendall(b"N")
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, daemon=True).start()
        yield f"postgresql://x:old@127.0.0.1:{listener.getsockname()[1]}/x"


@pytest.mark.parametrize(
    "message",
    [
        "Passwort-Authentifizierung f\u00fcr Benutzer \u00bbx\u00ab fehlgeschlagen",
        "\u5bc6\u7801\u8ba4\u8bc1\u5931\u8d25",
    ],
)
def test_fresh_credentials_are_tried_whatever_language_the_server_speaks(world: World, message: str) -> None:
    with contextlib.contextmanager(refusing)(message) as old:
        asked: list[bool] = []

        def dsn(fresh: bool) -> str:
            asked.append(fresh)
            return world.url if fresh else old

        database = Database(dsn)
        assert database.run("left_behind", locks=0)
        assert asked == [False, True]
        database.close()
        # Where there are no others, the server is not asked twice.
        with pytest.raises(DatabaseUnavailable), Database(lambda fresh: old).transaction():
            pass


def test_where_nobody_answers_no_fresh_credentials_are_asked_for() -> None:
    asked: list[bool] = []

    def dsn(fresh: bool) -> str:
        asked.append(fresh)
        return "postgresql://x:y@127.0.0.1:1/z"

    with pytest.raises(DatabaseUnavailable, match="Connection refused"), Database(dsn).transaction():
        pass
    assert asked == [False]


# Behind a pooler


@pytest.fixture
def behind(world: World, tmp_path: Path) -> Iterator[World]:
    """The same database, by way of PgBouncer with three connections."""
    with pooled(world.url, tmp_path / "pooler", connections=3) as url:
        pool = World(url, [])
        yield pool
        for database in pool.open:
            database.close()


def sessions(url: str) -> list[Any]:
    """What each of the pool's sessions is left with: one answer for each that there can be."""
    found = []
    with contextlib.ExitStack() as open_:
        for _ in range(3):
            connection = open_.enter_context(contextlib.closing(psycopg2.connect(url)))
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_backend_pid(), current_setting('statement_timeout'), current_setting('lock_timeout'),"
                    " current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'),"
                    " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
                )
                found.append(cursor.fetchone())
    assert len({each[0] for each in found}) == 3
    return [each[1:] for each in found]


UNTOUCHED = ("0", "0", "0", '"$user", public', 0)


def test_migrations_run_behind_a_pooler_and_leave_its_sessions_as_they_were(
    empty_database_url: str, tmp_path: Path
) -> None:
    with pooled(empty_database_url, tmp_path / "pooler", connections=3) as url:
        migrate(url)
        with contextlib.closing(psycopg2.connect(url)) as busy, busy.cursor() as cursor:
            cursor.execute("SELECT 1")  # keeps the session that the first run had
            assert migrate(url) == []
        assert sessions(url) == [UNTOUCHED] * 3


def test_events_are_processed_behind_a_pooler_and_its_sessions_stay_as_they_were(behind: World) -> None:
    def work_off(first: int) -> list[Kind]:
        processor = behind.processor(effect)
        done = [processor.process(numbered(*range(n, n + 10))) for n in range(first, first + 30, 10)]
        return [outcome.kind for each in done for outcome in each.values()]

    with ThreadPoolExecutor(4) as functions:
        kinds = [kind for each in functions.map(work_off, range(0, 120, 30)) for kind in each]
    assert kinds == [Kind.PROCESSED] * 120
    assert behind.effects() == 120
    assert sessions(behind.url) == [UNTOUCHED] * 3


def test_handlers_have_their_limits_behind_a_pooler(behind: World) -> None:
    behind.query("CREATE TABLE limits (statement text, lock text, path text)")

    def handler(event: Any, db: Any) -> None:
        db.execute(
            "INSERT INTO postern.limits SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
            " current_setting('search_path')"
        )

    behind.processor(handler).process(numbered(1))
    assert behind.query("SELECT * FROM limits") == [("10s", "5s", "public, postern")]


def test_what_an_event_leaves_behind_is_not_anothers_behind_a_pooler(behind: World) -> None:
    def leaves(event: Any, db: Any) -> None:
        db.execute("SET search_path = pg_catalog; CREATE TEMP TABLE mine (); PREPARE mine AS SELECT 1")
        db.execute("SELECT pg_advisory_lock(4711)")

    outcomes = behind.processor(leaves).process(numbered(1, 2, 3))
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.PROCESSED}
    assert sessions(behind.url) == [UNTOUCHED] * 3


def test_a_dry_run_works_behind_a_pooler(behind: World) -> None:
    found = RowChanges(lambda fresh: behind.url).of(lambda db: db.execute("INSERT INTO effects VALUES (NULL, 7)"))
    assert ([change.after for change in found.changes], found.error) == ([{"event": None, "n": 7}], None)
    assert behind.effects() == 0
    assert sessions(behind.url) == [UNTOUCHED] * 3


def test_maintenance_works_behind_a_pooler(behind: World) -> None:
    assert upkeep(behind).make_partitions()["partitions_not_made"] is None
    assert upkeep(behind, in_days=2).index_payloads()["payload_indexes_not_made"] is None
    assert sessions(behind.url) == [UNTOUCHED] * 3


# With things of the team's own


def receive_until_settled(world: World, item: Any, *functions: Any) -> list[Kind]:
    """Its outcomes, one a try; a handful, or it would go on for ever."""
    kinds = []
    for receives in range(1, 7):
        [outcome] = world.processor(*functions).process([replace(item, receives=receives)]).values()
        kinds.append(outcome.kind)
        if outcome.kind is not Kind.RETRY:
            break
    return kinds


@pytest.mark.parametrize(
    "column",
    [
        "customer text GENERATED ALWAYS AS (payload ->> 'customer') STORED",
        "customer text",
        "customer text NOT NULL DEFAULT 'none'",
        "seen timestamptz NOT NULL DEFAULT now()",
    ],
)
def test_a_column_and_an_index_of_the_teams_do_no_harm(world: World, column: str) -> None:
    world.query(f"ALTER TABLE postern.events ADD COLUMN {column}")
    world.query(f"CREATE INDEX ON postern.events ({column.split()[0]})")
    old = received(40, body=b'{"customer": "ada"}')
    new = work(body=b'{"customer": "bob"}')
    assert receive_until_settled(world, new, effect) == [Kind.PROCESSED]
    assert receive_until_settled(world, old, fails) == [Kind.RETRY] * 2 + [Kind.DEAD]
    # Days are made, and go; what outlives its day keeps what stands in the column.
    done = run(upkeep(world, in_days=3))
    assert (done["partitions_not_made"], done["partitions_not_dropped"]) == (None, None)
    run(upkeep(world, in_days=40))
    [(status, kept)] = world.query(
        "SELECT status, customer FROM events" if "customer" in column else "SELECT status, 1 FROM events"
    )
    assert status == "dead"
    assert kept in ("ada", None, "none", 1)


@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        ("ALTER TABLE postern.events ADD COLUMN tenant text NOT NULL", "null value in column"),
        ("ALTER TABLE postern.events ADD CHECK (false) NOT VALID", "violates check constraint"),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON postern.events FOR EACH ROW EXECUTE FUNCTION refuse()",
            "not this one",
        ),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 FROM missing; END $$;"
            "CREATE TRIGGER refuse AFTER INSERT ON postern.events FOR EACH ROW EXECUTE FUNCTION refuse()",
            "missing",
        ),
    ],
)
def test_what_keeps_every_row_out_is_said_and_nothing_goes_round_in_circles(world: World, ddl: str, said: str) -> None:
    world.query(ddl)
    item = work()
    for _ in range(4):  # more often than there are attempts
        [outcome] = world.processor(effect).process([item]).values()
        assert (outcome.kind, outcome.attempts, said in outcome.reason) == (Kind.RETRY, 0, True), outcome
    assert world.effects() == 0


def test_what_keeps_one_row_out_is_that_events_failure(world: World) -> None:
    world.query("ALTER TABLE postern.events ADD CHECK (type <> 'odd')")
    odd, mate = work(type="odd"), work()
    outcomes = world.processor(effect).process([odd, mate])
    assert outcomes[mate.event.id].kind is Kind.PROCESSED
    assert receive_until_settled(world, odd, effect)[-1] is Kind.DEAD
    assert world.effects() == 1


# Far times


@pytest.mark.parametrize("since", ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00+14:00"])
def test_a_time_before_1970_means_all_there_is(world: World, since: str) -> None:
    world.processor(effect).process([work()])
    asked = EventFilters().load({"since": since})
    assert len(Events(world.database()).events(asked, limit=5).events) == 1
    assert len(Events(world.database()).events(EventFilters().load({"until": since}), limit=5).events) == 0


def test_a_time_after_all_ids_is_the_last(world: World) -> None:
    world.processor(effect).process([work()])
    asked = EventFilters().load({"until": "9999-12-31T00:00:00Z"})
    assert len(Events(world.database()).events(asked, limit=5).events) == 1
    far = "SELECT postern.uuid7_floor('20000-01-01')::text, postern.uuid7_floor('infinity')::text"
    assert {id[:13] for id in world.query(far)[0]} == {"ffffffff-ffff"}
