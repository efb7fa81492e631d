"""The connection of a warm function: lazy, kept, replaced; and what PostgreSQL's errors are taken for."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

from chalicelib.postern.adapters import secrets as secrets_adapter
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.contract.errors import ConfigurationError, DatabaseUnavailable, StatementFailed
from chalicelib.postern.processing.settling import Kind
from chalicelib.postern.running import wiring
from devstack.aws import EmulatedAws
from devstack.postgres import Server
from tests.integration.world import World, effect, numbered, work


def backend(database: Database) -> int:
    with database.transaction() as session:
        return int(session.execute("SELECT pg_backend_pid() AS pid")[0]["pid"])


def test_the_connection_is_opened_when_it_is_needed_and_kept(world: World) -> None:
    asked: list[bool] = []

    def dsn(fresh: bool) -> str:
        asked.append(fresh)
        return world.url

    database = Database(dsn)
    assert asked == []
    assert backend(database) == backend(database)
    assert asked == [False]
    database.close()


def test_a_broken_connection_is_replaced(world: World) -> None:
    database = world.database()
    first = backend(database)
    world.query("SELECT pg_terminate_backend(%s)", first)
    assert backend(database) != first


def test_a_transaction_that_is_cut_off_is_the_databases_fault_and_the_next_one_works(world: World) -> None:
    database = world.database()
    with pytest.raises(DatabaseUnavailable), database.transaction() as session:
        world.query("SELECT pg_terminate_backend(%s)", session.execute("SELECT pg_backend_pid() AS pid")[0]["pid"])
        session.execute("SELECT 1")
    assert backend(database)


def test_a_block_that_raises_leaves_nothing_and_keeps_the_connection(world: World) -> None:
    database = world.database()
    first = backend(database)
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        session.execute("INSERT INTO effects VALUES (NULL, 1)")
        raise ZeroDivisionError
    assert (world.effects(), backend(database)) == (0, first)


def test_the_settings_outlive_a_rollback(world: World) -> None:
    world.query(f"ALTER DATABASE {world.url.rpartition('/')[2]} SET jit = on")
    database = world.database()
    with pytest.raises(StatementFailed), database.transaction() as session:
        session.execute("SELECT 1 / 0")
    with database.transaction() as session:
        settings = session.execute(
            "SELECT current_setting('statement_timeout') AS s, current_setting('lock_timeout') AS l,"
            " current_setting('idle_in_transaction_session_timeout') AS i, current_setting('jit') AS jit"
        )
    assert settings == [{"s": "20s", "l": "5s", "i": "1min", "jit": "off"}]


def test_bad_data_is_told_apart_from_what_passes(world: World) -> None:
    database = world.database()
    for statement, bad_data in (
        ("SELECT 1 / 0", True),
        ("SELECT '1e999999'::jsonb", True),
        ("SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(5)", False),
    ):
        with pytest.raises(StatementFailed) as caught, database.transaction() as session:
            session.execute(statement)
        assert caught.value.bad_data is bad_data


def test_a_lock_that_does_not_come_is_nobodys_bad_data(world: World) -> None:
    with contextlib.closing(psycopg2.connect(world.url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE effects")
        with pytest.raises(StatementFailed) as caught, world.database().transaction() as session:
            session.execute("SET LOCAL lock_timeout = '10ms'; SELECT * FROM effects")
    assert not caught.value.bad_data


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER DATABASE {name} SET default_transaction_read_only = on",
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'disk full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON postern.events FOR EACH ROW EXECUTE FUNCTION full_disk()",
    ],
    ids=["read-only", "disk-full"],
)
@pytest.mark.parametrize("functions", [(), (effect,)], ids=["no handler", "handled"])
def test_a_database_that_takes_nobodys_writes_is_away_and_blames_no_event(
    world: World, statement: str, functions: tuple[Any, ...]
) -> None:
    batch = numbered(1, 2, 3)
    world.query(statement.replace("{name}", world.url.rsplit("/", 1)[1]))
    for _ in range(4):  # more often than there are attempts
        outcomes = world.processor(*functions).process(batch)
        assert {(o.kind, o.attempts, o.reason.partition(":")[0]) for o in outcomes.values()} == {
            (Kind.RETRY, 0, "database")
        }


def test_texts_are_stored_as_they_came_whatever_the_databases_client_encoding_is(world: World) -> None:
    setting = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET client_encoding = latin1', current_database()); END $$"
    world.query(setting)
    world.processor(effect).process([work("k", '{"n": 1, "name": "Zoë"}'.encode(), type="bœuf")])
    with (
        contextlib.closing(psycopg2.connect(world.url, client_encoding="UTF8")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT payload ->> 'name', type FROM postern.events")
        assert cursor.fetchall() == [("Zoë", "bœuf")]


def test_a_row_that_a_trigger_keeps_away_is_no_event_that_was_processed(world: World) -> None:
    world.query("CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    world.query("CREATE TRIGGER away BEFORE INSERT ON postern.events FOR EACH ROW EXECUTE FUNCTION away()")
    item = work()
    outcome = world.processor(effect).process([item])[item.event.id]
    assert (outcome.kind, world.effects()) == (Kind.RETRY, 0)
    assert world.query("SELECT count(*) FROM postern.dedup_keys") == [(0,)]


def test_no_message_quotes_a_row(world: World) -> None:
    world.query("CREATE UNIQUE INDEX ON effects (n)")
    with pytest.raises(StatementFailed) as caught, world.database().transaction() as session:
        session.execute("INSERT INTO effects (n) VALUES (987654), (987654)")
    assert "987654" not in str(caught.value)


@pytest.fixture
def clerk(world: World) -> Iterator[str]:
    """A role whose password can be rotated."""
    name = "clerk_" + world.url.rsplit("_", 1)[1]
    world.query(f"CREATE ROLE {name} LOGIN PASSWORD 'old'")
    yield name
    world.query(f"DROP ROLE {name}")


def test_a_rotated_password_is_fetched_once_and_tried_once(world: World, clerk: str) -> None:
    current = {"password": "old"}
    known = dict(current)
    fetches: list[bool] = []

    def dsn(fresh: bool) -> str:
        fetches.append(fresh)
        if fresh:
            known.update(current)
        address = world.url.split("@")[1]
        return f"postgresql://{clerk}:{known['password']}@{address}"

    database = Database(dsn)
    world.query(f"ALTER ROLE {clerk} PASSWORD 'new'")
    current["password"] = "new"
    assert backend(database)
    assert fetches == [False, True]
    database.close()
    current["password"] = "unknown to the server"
    known["password"] = "wrong"
    with pytest.raises(DatabaseUnavailable, match="authentication failed"), database.transaction():
        pass
    assert fetches == [False, True, False, True]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "postgres")
    server.start()
    yield server
    server.stop()


def test_a_killed_server_costs_no_event_an_attempt_and_all_of_them_are_processed_later(own_server: Server) -> None:
    from chalicelib.postern.adapters.migrations import migrate

    migrate(own_server.url)
    world = World(own_server.url, [])
    world.query("CREATE TABLE effects (event uuid, n integer)")
    batch = numbered(1, 2, 3)

    def killing(event: Any, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == 2:
            own_server.kill()

    database = world.database()
    for outcomes in (
        world.processor(killing, database=database).process(batch),
        world.processor(effect, database=database).process(batch),  # it is still away
    ):
        assert {o.kind for o in outcomes.values()} == {Kind.RETRY}
        assert {o.attempts for o in outcomes.values()} == {0}
    own_server.start()
    assert world.rows() == []
    outcomes = world.processor(effect, database=database).process(batch)
    assert {o.kind for o in outcomes.values()} == {Kind.PROCESSED}
    assert (world.rows(), world.effects()) == ([("processed", 1)] * 3, 3)
    database.close()


def test_a_server_without_a_free_connection_is_away(world: World) -> None:
    role = "few_" + world.url.rsplit("_", 1)[1]
    world.query(f"CREATE ROLE {role} LOGIN PASSWORD 'pw' CONNECTION LIMIT 1")
    dsn = f"postgresql://{role}:pw@{world.url.split('@')[1]}"
    with (
        contextlib.closing(psycopg2.connect(dsn)),
        pytest.raises(DatabaseUnavailable, match="too many connections"),
        Database(lambda fresh: dsn).transaction(),
    ):
        pass
    world.query(f"DROP ROLE {role}")


def test_the_databases_secret_is_fetched_once_and_again_after_a_rotation(
    world: World, clerk: str, aws: EmulatedAws, point_aws_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RDS writes it, with a password that needs quoting."""
    address = psycopg2.extensions.parse_dsn(world.url)
    secrets = aws.client("secretsmanager")

    def rotate(password: str) -> None:
        world.query(f"ALTER ROLE {clerk} PASSWORD %s", password)
        parts = {"host": address["host"], "port": int(address["port"]), "dbname": address["dbname"]}
        secret = json.dumps({**parts, "username": clerk, "password": password, "sslmode": "disable"})
        secrets.put_secret_value(SecretId=secret_id, SecretString=secret)

    secret_id = secrets.create_secret(Name=clerk, SecretString="{}")["ARN"]
    monkeypatch.setenv("DATABASE_SECRET_ID", secret_id)
    wiring.config.cache_clear()
    with pytest.raises(ConfigurationError, match="not a JSON object with username"):
        wiring.database_dsn(True)
    rotate("it's \\ old")
    database = Database(wiring.database_dsn)
    assert backend(database)
    database.close()
    rotate("new")
    assert backend(database)
    database.close()
    wiring.config.cache_clear()


@pytest.fixture
def secret_of(aws: EmulatedAws, point_aws_at: Callable[..., None]) -> Callable[[Any], str]:
    """Keeps a value in a secret of its own; the secret's id."""

    def keep(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        return str(aws.client("secretsmanager").create_secret(Name=f"db-{uuid.uuid4()}", SecretString=text)["ARN"])

    return keep


# As RDS keeps the password that it manages itself, and as a secret's attachment to an instance completes one.
MANAGED = {"username": "u", "password": "p"}
ATTACHED = MANAGED | {"engine": "postgres", "host": "db.example.com", "port": 5433, "dbname": "inbox"}
ATTACHED |= {"dbInstanceIdentifier": "postern"}


def test_a_database_secret_asks_for_a_checked_certificate_unless_it_says_otherwise(
    secret_of: Callable[[Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets_adapter, "_SYSTEMS_AUTHORITIES", ())
    secret_id = secret_of({"host": "db.example.com", "username": "u", "password": "p"})
    assert psycopg2.extensions.parse_dsn(
        secrets_adapter.database_dsn(secret_id, authorities=tmp_path / "none.pem")
    ) == {
        "host": "db.example.com",
        "port": "5432",
        "dbname": "postgres",
        "user": "u",
        "password": "p",
        "sslmode": "verify-full",
        "sslrootcert": "system",
    }


def test_a_secret_that_is_attached_to_its_instance_is_enough(secret_of: Callable[[Any], str]) -> None:
    parts = psycopg2.extensions.parse_dsn(secrets_adapter.database_dsn(secret_of(ATTACHED)))
    assert (parts["host"], parts["port"], parts["dbname"]) == ("db.example.com", "5433", "inbox")
    assert (parts["user"], parts["password"]) == ("u", "p")


def test_settings_name_the_database_of_a_secret_that_rds_manages(
    secret_of: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_SECRET_ID", secret_of(MANAGED))
    monkeypatch.setenv("DATABASE_HOST", "proxy.example.com")
    monkeypatch.setenv("DATABASE_PORT", "6432")
    monkeypatch.setenv("DATABASE_NAME", "ours")
    wiring.config.cache_clear()
    parts = psycopg2.extensions.parse_dsn(wiring.database_dsn(True))
    wiring.config.cache_clear()
    assert (parts["host"], parts["port"], parts["dbname"]) == ("proxy.example.com", "6432", "ours")
    assert (parts["user"], parts["password"]) == ("u", "p")


def test_a_setting_goes_before_the_address_that_rds_wrote_into_the_secret(secret_of: Callable[[Any], str]) -> None:
    """Each by itself: a proxy has another host than its database, and the same name."""
    dsn = secrets_adapter.database_dsn(secret_of(ATTACHED), host="proxy.example.com")
    parts = psycopg2.extensions.parse_dsn(dsn)
    assert (parts["host"], parts["port"], parts["dbname"]) == ("proxy.example.com", "5433", "inbox")


def test_a_secret_without_a_host_says_which_setting_it_needs(secret_of: Callable[[Any], str]) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_HOST is not set"):
        secrets_adapter.database_dsn(secret_of(MANAGED))


@pytest.mark.parametrize("value", ["canary", '["canary"]', '"canary"', '{"password": "canary"}', "null", "{canary"])
def test_a_database_secret_of_another_shape_is_not_quoted(value: str, secret_of: Callable[[Any], str]) -> None:
    with pytest.raises(ConfigurationError, match="not a JSON object with username and password") as caught:
        secrets_adapter.database_dsn(secret_of(value), host="db.example.com")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("sslmode", "taken"), [("verify-full", True), ("verify-ca", True), ("require", False), ("disable", False)]
)
def test_authorities_in_their_file_are_asked_where_certificates_are_checked(
    sslmode: str, taken: bool, secret_of: Callable[[Any], str], tmp_path: Path
) -> None:
    """With a file to check against, libpq would check in `require` as well."""
    authorities = tmp_path / "database-ca.pem"
    authorities.touch()
    dsn = secrets_adapter.database_dsn(secret_of({**ATTACHED, "sslmode": sslmode}), authorities=authorities)
    assert psycopg2.extensions.parse_dsn(dsn).get("sslrootcert") == (str(authorities) if taken else None)


def test_the_secret_may_name_other_authorities_than_the_file(secret_of: Callable[[Any], str], tmp_path: Path) -> None:
    authorities = tmp_path / "database-ca.pem"
    authorities.touch()
    secret_id = secret_of({**ATTACHED, "sslrootcert": "/etc/pki/tls/certs/ca-bundle.crt"})
    dsn = secrets_adapter.database_dsn(secret_id, authorities=authorities)
    assert psycopg2.extensions.parse_dsn(dsn)["sslrootcert"] == "/etc/pki/tls/certs/ca-bundle.crt"


def test_the_file_of_authorities_is_where_chalice_packages_it() -> None:
    assert secrets_adapter.SHIPPED_AUTHORITIES.is_relative_to(SHIPPED_SOURCES.parent)
