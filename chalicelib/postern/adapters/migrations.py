"""Numbered migrations: Postern's own in postern/migrations, the team's in handlers/migrations.

Each runs once, in the order of its number, in a transaction of its own; one that begins with `-- no-transaction` runs
outside, as CREATE INDEX CONCURRENTLY has to. Whatever it sets for its session ends with it. Two runs keep apart, behind
a pooler as well: the lock that they wait for belongs to a transaction, which a second connection keeps open.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Identifier

from chalicelib.postern.adapters.guard import ends_transaction, without_opaque
from chalicelib.postern.adapters.teams_room import TEAMS_MIGRATIONS
from chalicelib.postern.contract.errors import DatabaseUnavailable, MigrationError

# Owner -> folder; Postern's come first, because the team's may refer to them.
FOLDERS = {
    "postern": Path(__file__).parent.parent / "migrations",
    "handlers": TEAMS_MIGRATIONS,
}

# What is tried; newer ones are not refused.
OLDEST_SERVER = 15
_ENCODING = "UTF8"

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql", re.ASCII)
# sqlx has the same mark.
_NO_TRANSACTION = re.compile(r"\s*--[ \t]*no-transaction\b")
_COMMENT = re.compile(r"--[^\n]*")
_CONCURRENTLY = re.compile(
    r"""create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?
        (?:(?P<unnamed>on)\b | (?P<index>"[^"]+"|[\w$]+)\s+on\s+(?:only\s+)?(?P<table>(?:"[^"]+"|[\w$]+|\.)+))""",
    re.IGNORECASE | re.VERBOSE,
)
# What no transaction may have in it, and what ends whole or not at all, but for an index, which is looked after.
_OUTSIDE = re.compile(
    r"\s*(?:create\s+(?:unique\s+)?index\s+concurrently|drop\s+index\s+concurrently|vacuum|alter\s+type)\b",
    re.IGNORECASE,
)

_CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "postern-migrate",
    "client_encoding": "UTF8",
}

# How long one run waits for another to be done.
_LOCK_SECONDS = 60
_LOCK = f"""
SET LOCAL lock_timeout = '{_LOCK_SECONDS}s';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SELECT pg_advisory_xact_lock(hashtext('postern.migrations'));
"""

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS postern;
CREATE TABLE IF NOT EXISTS postern.migrations (
  owner       text        NOT NULL,
  name        text        NOT NULL,
  checksum    text        NOT NULL,
  applied_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT migrations_pkey PRIMARY KEY (owner, name)
);
"""

# Rather give up than queue every reader and writer behind a lock that does not come; but take the time that it takes.
_BEFORE = """
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL client_encoding = 'UTF8';
"""
# Ours are written in standard SQL, whatever the role or the server has been set to.
_OUR_STRINGS = "SET LOCAL standard_conforming_strings = on"
# The team's names without a schema are its own, as in its handlers, also where the role is called like our schema.
_TEAMS_NAMES = """
SELECT set_config('search_path', string_agg(quote_ident(schema), ', ' ORDER BY schema = 'postern', place), %s)
FROM unnest(current_schemas(false)) WITH ORDINALITY AS found (schema, place)
HAVING count(*) > 0
"""
# As DISCARD ALL, which no transaction may have in it; in this one, so that it meets the same session behind a pooler.
_AFTER = """
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
DISCARD TEMP;
DEALLOCATE ALL;
SELECT pg_advisory_unlock_all();
"""
# What CREATE INDEX CONCURRENTLY leaves when it fails, or is killed.
_UNFINISHED_INDEX = """
SELECT nspname, relname, indexrelid IN (SELECT index_relid FROM pg_stat_progress_create_index)
FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE NOT indisvalid AND relkind = 'i' AND indrelid = to_regclass(%(table)s) AND relname = (parse_ident(%(index)s))[1]
"""


@dataclass(frozen=True)
class Migration:
    owner: str
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not _NO_TRANSACTION.match(self.sql)

    def check(self) -> None:
        """Raises MigrationError for what could end half done."""
        code = without_opaque(self.sql)
        if self.in_transaction:
            if ends_transaction(self.sql):
                raise MigrationError(
                    f"Migration {self.name} ends its transaction, so that a failure would leave half of it: "
                    "take BEGIN and COMMIT out, each migration is a transaction already. "
                    "What cannot be in one goes into a migration that begins with the line -- no-transaction."
                )
            if _CONCURRENTLY.search(code):
                raise MigrationError(
                    f"Migration {self.name} creates an index CONCURRENTLY, which no transaction can: "
                    "put it into a migration of its own that begins with the line -- no-transaction."
                )
            return
        if sum(bool(statement.strip()) for statement in code.split(";")) > 1:
            raise MigrationError(
                f"Migration {self.name} has no transaction, and several statements, of which a failure would leave "
                "some: make each a migration of its own."
            )
        if not _OUTSIDE.match(code):
            raise MigrationError(
                f"Migration {self.name} has no transaction, and may create or drop an index CONCURRENTLY, VACUUM, or "
                "ALTER TYPE: of all else a failure could leave a part."
            )
        if (found := _CONCURRENTLY.search(_COMMENT.sub("", self.sql))) and found["unnamed"]:
            raise MigrationError(
                f"Migration {self.name} creates an index without a name, so that nobody could find it again where it "
                "was left unfinished: give it one."
            )


def migrate(dsn: str, folders: dict[str, Path] | None = None) -> list[str]:
    """Brings the database to this version; the names of the migrations that it took, in order.

    Raises DatabaseUnavailable, or MigrationError when a migration fails (the ones before it stay, nothing of itself
    does), when one that was applied has since been changed or removed, or when Postern cannot work with the database.
    """
    known = _known(folders)
    with closing(_connect(dsn)) as keeper, closing(_connect(dsn)) as connection:
        _check_server(connection)
        _keep_apart(keeper)
        with _told("The schema cannot be made"), connection, connection.cursor() as cursor:
            cursor.execute(_BOOTSTRAP)
            cursor.execute("SELECT owner, name, checksum FROM postern.migrations")
            applied = {(owner, name): checksum for owner, name, checksum in cursor}
        waiting = list(_pending(known, applied))
        for migration in waiting:
            migration.check()
        for done, migration in enumerate(waiting):
            with _told("The lock of this run was lost"), keeper.cursor() as cursor:
                cursor.execute("SELECT 1")
            with _told(f"Migration {migration.name} failed", _where_it_stands(waiting, done)):
                (_apply if migration.in_transaction else _apply_outside)(connection, migration)
        return [migration.name for migration in waiting]


def pending(applied: Mapping[tuple[str, str], str], folders: dict[str, Path] | None = None) -> list[str]:
    """The names of the migrations that are still to come, where these were applied, by owner and name with their
    checksums. Raises MigrationError as migrate does.
    """
    return [m.name for m in _pending(_known(folders), applied)]


def _pending(known: list[Migration], applied: Mapping[tuple[str, str], str]) -> Iterator[Migration]:
    present = {(m.owner, m.name) for m in known}
    for owner, name in applied:
        # The team may drop a handler and its migration, such as the example's; Postern's own are never dropped.
        if owner == "postern" and (owner, name) not in present:
            raise MigrationError(
                f"Migration {name} was applied to this database, but this version does not have it: "
                "the database is newer than the code."
            )
    for migration in known:
        checksum = applied.get((migration.owner, migration.name))
        if checksum is None:
            yield migration
        elif checksum != migration.checksum:
            raise MigrationError(f"Migration {migration.name} was changed after it was applied; add a new one instead.")


def _connect(dsn: str) -> psycopg2.extensions.connection:
    try:
        connection: psycopg2.extensions.connection = psycopg2.connect(dsn, **_CONNECTION)
    except psycopg2.Error as exc:
        raise DatabaseUnavailable(str(exc).strip()) from exc
    return connection


def _check_server(connection: psycopg2.extensions.connection) -> None:
    if connection.info.server_version < OLDEST_SERVER * 10_000:
        raise MigrationError(
            f"This is PostgreSQL {connection.info.parameter_status('server_version')}, "
            f"and Postern needs {OLDEST_SERVER} or newer."
        )
    with _told("The database's encoding is not known"), connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")  # not every pooler passes it on with the start
        ((encoding,),) = cursor.fetchall()
    if encoding != _ENCODING:
        raise MigrationError(
            f"The encoding of database {connection.info.dbname} is {encoding}, which has no room for all that senders "
            "write. Postern needs UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )


def _keep_apart(keeper: psycopg2.extensions.connection) -> None:
    """Its transaction holds the lock until it is closed. It has no snapshot and no locks of tables, so that nothing
    waits for it but another run.
    """
    try:
        with keeper.cursor() as cursor:
            cursor.execute(_LOCK)
    except psycopg2.errors.LockNotAvailable as exc:
        raise MigrationError(f"Another run of the migrations was not done within {_LOCK_SECONDS} s.") from exc
    except psycopg2.Error as exc:
        raise MigrationError(f"The migrations cannot be locked: {exc}") from exc


@contextmanager
def _told(what: str, afterwards: str = "") -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as exc:
        raise MigrationError("\n".join(filter(None, (f"{what}: {str(exc).strip()}", afterwards)))) from exc


def _where_it_stands(waiting: Sequence[Migration], done: int) -> str:
    before = f"{waiting[done - 1].name} before it is applied" if done else "Nothing was applied before it"
    behind = len(waiting) - done - 1
    after = f", {behind} behind it wait" if behind else ""
    nothing = "Nothing of it is left. " if waiting[done].in_transaction else ""
    return f"{nothing}{before}{after}; mend it and migrate again."


def _apply(connection: psycopg2.extensions.connection, migration: Migration) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(_BEFORE)
        if migration.owner == "postern":
            cursor.execute(_OUR_STRINGS)
        else:
            cursor.execute(_TEAMS_NAMES, (True,))
        cursor.execute(migration.sql)
        cursor.execute(_AFTER)
        _record(cursor, migration)


def _apply_outside(connection: psycopg2.extensions.connection, migration: Migration) -> None:
    """It waits as long as it takes for the transactions before it: nobody waits behind it meanwhile. Its settings are
    the session's, and are taken back; behind a pooler as far as that gives the same session again.
    """
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for setting in ("lock_timeout", "statement_timeout"):
                cursor.execute("SELECT set_config(%s, '0', false) WHERE current_setting(%s) <> '0'", (setting, setting))
            cursor.execute(_TEAMS_NAMES, (False,))
            _drop_unfinished(cursor, migration)
            try:
                cursor.execute(migration.sql)
            except psycopg2.Error:
                if not connection.closed:
                    _drop_unfinished(cursor, migration)
                raise
            if _unfinished(cursor, migration):
                raise MigrationError(f"Migration {migration.name}: its index is there, and not valid.")
            cursor.execute(_AFTER)
            _record(cursor, migration)
    finally:
        if not connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("RESET ALL")
            connection.autocommit = False


def _unfinished(cursor: psycopg2.extensions.cursor, migration: Migration) -> list[tuple[str, str, bool]]:
    """The index that this migration is about, where it is not valid: schema, name, whether it is being built now."""
    found = _CONCURRENTLY.search(_COMMENT.sub("", migration.sql))
    if found is None:
        return []
    cursor.execute(_UNFINISHED_INDEX, {"table": found["table"], "index": found["index"]})
    return cursor.fetchall()


def _drop_unfinished(cursor: psycopg2.extensions.cursor, migration: Migration) -> None:
    """What this migration began, now or earlier, and did not end. Raises MigrationError while it is being built."""
    for schema, name, building in _unfinished(cursor, migration):
        if building:
            raise MigrationError(f"Migration {migration.name}: index {name} is still being built; migrate again later.")
        cursor.execute(SQL("DROP INDEX CONCURRENTLY {}").format(Identifier(schema, name)))


def _record(cursor: psycopg2.extensions.cursor, migration: Migration) -> None:
    cursor.execute(
        "INSERT INTO postern.migrations (owner, name, checksum) VALUES (%s, %s, %s)",
        (migration.owner, migration.name, migration.checksum),
    )


def _known(folders: dict[str, Path] | None) -> list[Migration]:
    return [m for owner, folder in (folders or FOLDERS).items() for m in _read(owner, folder)]


def _read(owner: str, folder: Path) -> list[Migration]:
    if not folder.is_dir():
        return []
    found, last = [], 0
    for file in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(file.name)
        number = int(match[1]) if match else 0
        if owner == "postern" and number != last + 1:
            raise MigrationError(f"{file.name} is not the name of migration {last + 1:04}, such as 0001_events.sql.")
        # The team may delete what it needs no more, such as the example's.
        if number <= last:
            wanted = (
                f"{last:04} is taken" if number else "it begins with its number, and has small letters, digits and _"
            )
            raise MigrationError(
                f"{file.name} is not the name of a migration: {wanted}. The next is {last + 1:04}_….sql."
            )
        last = number
        # Editors on Windows put a byte order mark before the first word.
        found.append(Migration(owner, file.stem, file.read_text("utf-8-sig")))
    return found
